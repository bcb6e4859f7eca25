"""Writes tests/fixtures/trainer-checkpoints.json: which checkpoints transformers' Trainer leaves, by settings.

    python tests/reference/make_trainer_checkpoints.py

8 rows in steps of 2, so 4 steps an epoch; the model is one weight, which has no effect on the steps at which
a checkpoint is saved.
"""

import json
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import Trainer, TrainingArguments

cases = [
    {"save_strategy": "steps", "save_steps": 2, "max_steps": 5},
    {"save_strategy": "steps", "max_steps": 3},
    {"save_strategy": "steps", "save_steps": 0.4, "max_steps": 5},
    {"save_strategy": "epoch", "max_steps": 6},
    {"save_strategy": "epoch", "num_train_epochs": 1.5},
    {"save_strategy": "no", "max_steps": 3},
    {"save_strategy": "steps", "save_steps": 2, "max_steps": 5, "save_total_limit": 1},
]


class OneWeight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, labels=None):
        loss = ((self.weight * x - labels) ** 2).mean()
        return {"loss": loss, "logits": self.weight * x}


def checkpoints(settings):
    rows = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([1.0])} for i in range(8)]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=2,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **settings,
        )
        Trainer(model=OneWeight(), args=arguments, train_dataset=rows).train()
        names = [path.name for path in Path(output).glob("checkpoint-*")]
    return sorted(names, key=lambda name: int(name.split("-")[1]))


fixture = {
    "transformers": transformers.__version__,
    "cases": [{"settings": settings, "checkpoints": checkpoints(settings)} for settings in cases],
}
path = Path(__file__).parent.parent / "fixtures" / "trainer-checkpoints.json"
path.write_text(json.dumps(fixture, indent=2) + "\n")
