"""Makes tests/fixtures/tasks/labelled*: a step of torch on a classifier and a regression over one BERT.

Usage: python make_labelled_tasks_fixture.py MODELS_DIR OUT_DIR

Needs torch and transformers. Each task has a head (BERT's pooler and a projection) of its own and a mean of its own; the
loss is sum_k c_k * exp(-s_k) * L_k + s_k / 2 at s = 0, c = 1 of classes and 1/2 of a regression (Kendall 2018).
"""

import copy
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

MODEL = "bert-seqcls"
LENGTH = 7
SIZES = {"topic": (2, 1), "mark": (2, 2)}


def main(models: Path, out: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(models / MODEL, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(3)
    width = model.config.hidden_size
    num_labels = model.config.num_labels
    pooler = copy.deepcopy(model.bert.pooler)
    head = torch.nn.Linear(width, 1)
    with torch.no_grad():
        for value in (*pooler.parameters(), *head.parameters()):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    batches = []
    losses = {"topic": [], "mark": []}
    for task, sizes in SIZES.items():
        for size in sizes:
            tokens = torch.randint(5, model.config.vocab_size, (size, LENGTH), generator=generator)
            hidden = model.bert(input_ids=tokens).last_hidden_state
            if task == "topic":
                labels = torch.randint(0, num_labels, (size,), generator=generator)
                logits = model.classifier(model.bert.pooler(hidden))
                loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            else:
                labels = torch.randn((size,), generator=generator)
                loss = (head(pooler(hidden)).squeeze(1) - labels).square().sum()
            losses[task].append(loss)
            batches.append({"task": task, "tokens": tokens.tolist(), "labels": labels.tolist()})
    means = {task: sum(losses[task]) / sum(SIZES[task]) for task in SIZES}
    loss = means["topic"] + 0.5 * means["mark"]
    loss.backward()
    own = {
        "bert.pooler.dense.weight": pooler.dense.weight,
        "bert.pooler.dense.bias": pooler.dense.bias,
        "classifier.weight": head.weight,
        "classifier.bias": head.bias,
    }
    found = {f"head.{key}": value.detach() for key, value in own.items()}
    found |= {f"gradient.tasks/mark/{key}": value.grad for key, value in own.items()}
    for name, value in model.named_parameters():
        if value.dim() == 1 or "layer.0.attention.self.value" in name or "classifier" in name:
            found[f"gradient.{name}"] = value.grad
    save_file({key: value.contiguous() for key, value in found.items()}, out / "labelled.safetensors")
    case = {"model": MODEL, "length": LENGTH, "numLabels": num_labels, "batches": batches}
    told = {"loss": float(loss.detach()), "means": {k: float(v.detach()) for k, v in means.items()}}
    (out / "labelled.json").write_text(json.dumps(case | told) + "\n")
    print(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
