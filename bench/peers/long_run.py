"""Trains the batches and the schedule that `node dist/bench/long-run/run.js plan DIRECTORY` wrote, with
transformers and torch: bf16 autocast or fp32, fused AdamW, clipping.

    python bench/peers/long_run.py DIRECTORY OUT.json [--precision bf16|fp32]
"""

import argparse
import json
import sys
import time

import numpy
import torch
from transformers import AutoModelForCausalLM


def load(directory: str, name: str, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets, [batches, rows, tokens]. Targets are shifted already; -100 has none."""

    def read(key: str) -> torch.Tensor:
        flat = numpy.fromfile(f"{directory}/{name}-{key}.i32", dtype="<i4").astype("int64")
        return torch.from_numpy(flat).view(-1, *shape)

    return read("tokens"), read("targets")


def nll_sum(model, tokens: torch.Tensor, targets: torch.Tensor, bf16: bool) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model(input_ids=tokens, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="sum"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("out")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    options = parser.parse_args()
    bf16 = options.precision == "bf16"
    with open(f"{options.directory}/plan.json") as file:
        plan = json.load(file)
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.float32)
    model.train()
    # Decay reaches every tensor on both sides.
    optimizer = torch.optim.AdamW(
        model.parameters(),
        betas=plan["betas"],
        eps=plan["epsilon"],
        weight_decay=plan["weightDecay"],
        fused=True,
    )
    shape = (plan["rows"], plan["tokens"])
    losses, seconds = [], []
    for step, (tokens, targets) in enumerate(zip(*load(options.directory, "train", shape))):
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = plan["learningRates"][step]
        loss = nll_sum(model, tokens, targets, bf16) / (targets != -100).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan["maxGradNorm"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        print(f"step {step + 1}  loss {losses[-1]:.4f}  {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for tokens, targets in zip(*load(options.directory, "validation", shape)):
            total += nll_sum(model, tokens, targets, bf16).item()
            count += int((targets != -100).sum())
    with open(options.out, "w") as file:
        json.dump({"losses": losses, "validationLoss": total / count, "seconds": seconds}, file)


if __name__ == "__main__":
    main()
