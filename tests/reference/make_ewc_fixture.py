"""Makes tests/fixtures/methods/ewc-MODEL.safetensors: elastic weight consolidation, written out in torch.

Usage: python make_ewc_fixture.py MODELS_DIR OUT_DIR

Needs torch and transformers. The rows of the model's case.json are the general rows. `fisher.TENSOR` is the empirical
Fisher information: the gradient of each row's summed negative log-likelihood, squared, and the mean of that over the
rows. Then come five steps on the same rows with their tokens moved, of SGD and of AdamW: the task's losses, the
penalties lambda / 2 * sum F (theta - theta0)^2 with F over its mean, the norms before clipping to 1, and the weights.
"""

import copy
import sys
from pathlib import Path

import torch
from method_steps import read_case
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

MODEL = "llama-yarn"
LAMBDA = 5.0
NUM_STEPS = 5
MOVED_BY = 7
OPTIMIZERS = {
    "sgd": lambda values: torch.optim.SGD(values, lr=0.05),
    "adamw": lambda values: torch.optim.AdamW(values, lr=1e-2, eps=1e-6, weight_decay=0.0),
}


def log_likelihoods(model, ids, mask, labels) -> torch.Tensor:
    """Summed over the tokens that are learnt, of each row."""
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    wanted = labels[:, 1:]
    picked = torch.log_softmax(logits, -1).gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (picked * (wanted >= 0)).sum(-1)


def fisher_of(model, batch) -> dict[str, torch.Tensor]:
    sums = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    rows = range(len(batch["input_ids"]))
    for row in rows:
        model.zero_grad()
        one = [batch[key][row : row + 1] for key in ("input_ids", "attention_mask", "labels")]
        log_likelihoods(model, *one).sum().backward()
        for key, p in model.named_parameters():
            sums[key] += p.grad**2
    return {key: value / len(rows) for key, value in sums.items()}


def main(models: Path, out: Path) -> None:
    directory = models / MODEL
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    batch = read_case(directory)
    fisher = fisher_of(model, batch)
    found = {f"fisher.{key}": value for key, value in fisher.items()}
    mean = sum(v.double().sum() for v in fisher.values()) / sum(v.numel() for v in fisher.values())
    ids = (batch["input_ids"] + MOVED_BY) % model.config.vocab_size
    labels = torch.where(batch["labels"] < 0, batch["labels"], ids)
    count = (labels[:, 1:] >= 0).sum()
    for label, optimizer_of in OPTIMIZERS.items():
        own = copy.deepcopy(model)
        trained = dict(own.named_parameters())
        anchor = {key: p.detach().clone() for key, p in trained.items()}
        optimizer = optimizer_of(trained.values())
        figures = {"losses": [], "penalties": [], "norms": []}
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            loss = -log_likelihoods(own, ids, batch["attention_mask"], labels).sum() / count
            penalty = LAMBDA / 2 * sum(
                (fisher[key] / mean * (p - anchor[key]) ** 2).sum() for key, p in trained.items()
            )
            (loss + penalty).float().backward()
            norm = torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            for name, value in zip(figures, (loss, penalty, norm), strict=True):
                figures[name].append(value.detach().double())
        for name, values in figures.items():
            found[f"{label}.{name}"] = torch.stack(values).float()
            print(label, name, [round(float(each), 5) for each in values])
        for key, value in trained.items():
            found[f"{label}.{key}"] = value.detach().contiguous()
    save_file(found, out / f"ewc-{MODEL}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
