"""Writes tests/fixtures/early_stopping.json: what transformers' EarlyStoppingCallback does with scripted evaluations.

Usage: python tests/reference/make_early_stopping_fixture.py

The callback and Trainer._determine_best_metric are called as Trainer._maybe_log_save_evaluate calls them: the callback
first, with the best of before. Counters go on after the stop, so that a run which is continued can be compared too.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

NAN = float("nan")
INF = float("inf")
SEQUENCES = {
    "falls": [3.0, 2.5, 2.25, 2.0],
    "rises": [1.0, 1.5, 2.0, 2.5, 3.0],
    "equal": [1.0, 1.0, 1.0, 1.0],
    "falls a little": [1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.5, 0.495],
    "up and down": [2.0, 1.5, 1.75, 1.25, 1.5, 1.375, 1.0, 1.5, 1.5],
    "nan first": [NAN, 2.0, 2.5, 1.0],
    "nan twice first": [NAN, NAN, 2.0, 1.0],
    "nan between": [2.0, NAN, 1.5, NAN, NAN, 1.0],
    "infinite": [INF, INF, 2.0, INF, 1.0],
    "scores": [0.5, 0.5, 0.75, 0.625, 0.75, 0.8125, 0.25, 0.125],
    "by exactly the threshold": [1.0, 0.875, 0.75, 0.5, 0.375],
}


def script(values, patience, threshold, greater):
    args = SimpleNamespace(
        metric_for_best_model="loss", greater_is_better=greater, save_strategy=SaveStrategy.STEPS
    )
    state, control = TrainerState(), TrainerControl()
    trainer = SimpleNamespace(args=args, state=state)
    callback = EarlyStoppingCallback(patience, threshold)
    rows = []
    for index, value in enumerate(values):
        state.global_step = 2 * (index + 1)
        control.should_training_stop = False
        metrics = {"eval_loss": value}
        callback.on_evaluate(args, state, control, metrics)
        is_best = Trainer._determine_best_metric(trainer, metrics, None)
        rows.append(
            {
                "counter": callback.state()["attributes"]["early_stopping_patience_counter"],
                "stops": control.should_training_stop,
                "isBest": bool(is_best),
                "bestStep": state.best_global_step,
            }
        )
    return rows


def text(value):
    return value if math.isfinite(value) else str(value)


cases = [
    {
        "name": name,
        "values": [text(value) for value in values],
        "patience": patience,
        "threshold": threshold,
        "greaterIsBetter": greater,
        "rows": script(values, patience, threshold, greater),
    }
    for name, values in SEQUENCES.items()
    for patience in (1, 2, 3)
    for threshold in (0.0, 0.015, 0.125)
    for greater in (False, True)
]
state = EarlyStoppingCallback(3, 0.25).state()
path = Path(__file__).parents[1] / "fixtures" / "early_stopping.json"
path.write_text(json.dumps({"state": state, "cases": cases}, separators=(",", ":")) + "\n")
print(path, len(cases), "cases", path.stat().st_size, "bytes")
