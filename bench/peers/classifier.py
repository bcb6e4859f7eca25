"""Rows a second of a classifier's training by transformers' Trainer.

    python bench/peers/classifier.py MODEL_DIR [--precision bf16|fp32] [--rows N] [--steps N]

Prints {"values": {"classifier": rows a second}, "check": {"first": loss, "last": loss}}: over the steps
after the first five; the mean losses of the first and the last five. The texts are the directory's
rows.jsonl in their order, tokenised before and padded to the longest. bf16 is autocast, the Trainer's form.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

WARMUP_STEPS = 5


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **_) -> None:
        self.ends.append(time.perf_counter())


def labelled_rows(directory: Path, label2id: dict[str, int]) -> list[dict]:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    rows = [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]
    encodings = tokenizer.encode_batch([row["text"] for row in rows])
    return [
        {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "labels": label2id[row["label"]],
        }
        for row, encoding in zip(rows, encodings, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    model = AutoModelForSequenceClassification.from_pretrained(options.model)
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            use_cpu=True,
            bf16=options.precision == "bf16",
            per_device_train_batch_size=options.rows,
            train_sampling_strategy="sequential",
            max_steps=options.steps,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            logging_steps=WARMUP_STEPS,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=labelled_rows(options.model, model.config.label2id),
            callbacks=[clock],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = clock.ends[-1] - clock.ends[WARMUP_STEPS - 1]
    rate = (options.steps - WARMUP_STEPS) * options.rows / seconds
    print(json.dumps({"values": {"classifier": rate}, "check": {"first": losses[0], "last": losses[-1]}}))


if __name__ == "__main__":
    main()
