"""Makes tests/fixtures/tasks: steps of torch on two tasks, with fixed and with learnt weights.

Usage: python make_tasks_fixture.py MODELS_DIR OUT_DIR

Needs torch and transformers. The loss of a step is sum_k w_k * L_k, L_k the mean over all supervised tokens that
task k has in the step; with learnt weights sum_k exp(-s_k) * L_k + s_k / 2 (Kendall 2018), s_k by Adam of its own.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

MODEL = "gpt2"
LENGTHS = {"long": 8, "short": 5}
FIXED = {"long": 0.5, "short": 2.0}
RATE = 1e-2
# Of each step its groups, of each group the tasks of its batches.
STEPS = [
    [["long", "long"], ["long", "short"]],
    [["long"], ["long"]],
    [["short", "long"], ["short", "long"]],
    [["long", "short"], ["short"]],
]
RECORDED = ("transformer.h.1.attn.c_proj.weight", "transformer.wpe.weight")


def make_steps(vocab_size: int) -> list:
    generator = torch.Generator().manual_seed(5)

    def batch(task: str) -> dict:
        shape = (2, LENGTHS[task])
        tokens = torch.randint(0, vocab_size, shape, generator=generator)
        learnt = torch.rand(shape, generator=generator) < 0.6
        learnt[:, 0] = False
        learnt[0, 1] = True
        labels = torch.where(learnt, tokens, -100)
        return {"task": task, "tokens": tokens.tolist(), "labels": labels.tolist()}

    return [[[batch(task) for task in group] for group in step] for step in STEPS]


def task_means(model: torch.nn.Module, step: list) -> dict[str, torch.Tensor]:
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    for group in step:
        for batch in group:
            labels = torch.tensor(batch["labels"])[:, 1:]
            logits = model(input_ids=torch.tensor(batch["tokens"])).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
            )
            task = batch["task"]
            sums[task] = sums.get(task, 0) + loss
            counts[task] = counts.get(task, 0) + int((labels != -100).sum())
    return {task: sums[task] / counts[task] for task in sums}


def run(models: Path, steps: list, is_learnt: bool) -> tuple[dict, dict[str, torch.Tensor]]:
    model = AutoModelForCausalLM.from_pretrained(models / MODEL, dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, eps=1e-4, weight_decay=0.0)
    weights = {task: torch.nn.Parameter(torch.zeros((), dtype=torch.float64)) for task in LENGTHS}
    weight_optimizer = torch.optim.Adam(weights.values(), lr=RATE)
    is_recorded = lambda name, value: value.dim() == 1 or name in RECORDED
    told, found = [], {}
    for index, step in enumerate(steps):
        optimizer.zero_grad()
        weight_optimizer.zero_grad()
        means = task_means(model, step)
        s = {task: float(weights[task].detach()) for task in LENGTHS}
        if is_learnt:
            loss = sum(torch.exp(-weights[k]) * means[k].double() + weights[k] / 2 for k in means)
        else:
            loss = sum(FIXED[k] * means[k] for k in means)
        loss.backward()
        if index == 0:
            for name, value in model.named_parameters():
                if is_recorded(name, value):
                    found[f"gradient.{name}"] = value.grad.clone()
        optimizer.step()
        if is_learnt:
            weight_optimizer.step()
        means = {task: float(mean.detach()) for task, mean in means.items()}
        told.append({"loss": float(loss.detach()), "means": means, "s": s})
    for name, value in model.named_parameters():
        if is_recorded(name, value):
            found[f"after.{name}"] = value.detach().contiguous()
    final = {task: float(value.detach()) for task, value in weights.items()}
    return {"steps": told, "final": final}, found


def main(models: Path, out: Path) -> None:
    vocab_size = json.loads((models / MODEL / "config.json").read_text())["vocab_size"]
    steps = make_steps(vocab_size)
    case = {"model": MODEL, "lengths": LENGTHS, "fixed": FIXED, "rate": RATE, "steps": steps}
    for kind in ("fixed", "learnt"):
        case[kind + "Run"], found = run(models, steps, kind == "learnt")
        save_file(found, out / f"{kind}.safetensors")
    (out / "case.json").write_text(json.dumps(case) + "\n")
    print(case["fixedRun"], case["learntRun"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
