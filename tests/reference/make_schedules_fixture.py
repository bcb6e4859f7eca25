"""Writes tests/fixtures/golden/metric_schedules.json: rates of schedules that follow a metric, on scripted metrics,
and rates of transformers' schedules with arguments that lr_schedules.json does not have.

Usage: python make_schedules_fixture.py OUTPUT_FILE   (needs torch and transformers)
"""

import json
import sys

import torch
import transformers
from transformers.optimization import get_scheduler

RATE = 0.01
# Falls, stands still, falls by less than some thresholds, rises, and is no number once.
FALLING = [2.0, 1.5, 1.49, 1.4899, 1.48985, 1.6, 1.2, 1.2, 1.2, 1.2, 1.3, float("nan"), 1.1, 1.1, 1.1, 1.1, 1.1, 1.0]
RISING = [0.5, 0.6, 0.6001, 0.6, 0.55, 0.61, 0.61, 0.61, 0.61, 0.7, 0.71, 0.72, 0.73, 0.74, 0.6, 0.6, 0.6, 0.6]
METRIC_CASES = [
    ("reduce_lr_on_plateau", {"patience": 1}, FALLING),
    ("reduce_lr_on_plateau", {"patience": 0, "factor": 0.5, "cooldown": 2, "min_lr": 0.002}, FALLING),
    ("reduce_lr_on_plateau", {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "eps": 0.0005}, FALLING),
    ("reduce_lr_on_plateau", {"mode": "max", "patience": 1, "factor": 0.3, "threshold": 0.01}, RISING),
    ("reduce_lr_on_plateau", {"mode": "max", "patience": 0, "threshold_mode": "abs", "threshold": 0.02}, RISING),
    ("reduce_lr_on_plateau", {}, FALLING),
    ("greedy", {"patience": 1, "factor": 0.8}, FALLING),
    ("greedy", {"patience": 0, "factor": 0.5, "cooldown": 1, "warmup": 1, "min_lr": 0.004, "reset_start": 2}, FALLING),
    ("greedy", {"patience": 0, "factor": 0.5, "min_lr": 0.004, "max_lr": 0.03, "reset_start": 1}, FALLING),
    ("greedy", {"mode": "max", "patience": 0, "factor": 0.9, "max_lr": 0.012, "threshold_mode": "rel"}, RISING),
    ("greedy", {"patience": 0, "factor": 0.5, "min_lr": 0.004, "smooth": True, "window_size": 3, "reset_start": 1}, FALLING),
    ("greedy", {}, FALLING),
]
TOTAL, WARMUP = 20, 4
STEP_CASES = [
    ("cosine_warmup_with_min_lr", {"min_lr": 0.001}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.5}),
    ("cosine_with_min_lr", {"min_lr": 0.001, "num_cycles": 1.5}),
    ("inverse_sqrt", {"timescale": 7}),
    ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "1-sqrt", "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 5, "num_stable_steps": 3, "warmup_type": "cosine"}),
    ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "linear", "warmup_type": "1-sqrt"}),
]


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


def metric_rates(name: str, kwargs: dict, metrics: list[float]) -> list[float]:
    stepped = optimizer()
    scheduler = get_scheduler(name, stepped, scheduler_specific_kwargs=dict(kwargs))
    rates = []
    for metric in metrics:
        scheduler.step(metric)
        rates.append(stepped.param_groups[0]["lr"])
    return rates


def step_rates(name: str, kwargs: dict) -> list[float]:
    stepped = optimizer()
    scheduler = get_scheduler(name, stepped, WARMUP, TOTAL, scheduler_specific_kwargs=dict(kwargs))
    rates = []
    for _ in range(TOTAL):
        rates.append(stepped.param_groups[0]["lr"])
        stepped.step()
        scheduler.step()
    return rates


without_nan = lambda values: [None if value != value else value for value in values]
fixture = {
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "learning_rate": RATE,
    "metric_schedules": [
        {"name": name, "kwargs": kwargs, "metrics": without_nan(metrics), "rates_after": metric_rates(name, kwargs, metrics)}
        for name, kwargs, metrics in METRIC_CASES
    ],
    "warmup_steps": WARMUP,
    "total_steps": TOTAL,
    "schedules": [
        {"name": name, "kwargs": kwargs, "rates": step_rates(name, kwargs)} for name, kwargs in STEP_CASES
    ],
}
with open(sys.argv[1], "w") as file:
    json.dump(fixture, file)
