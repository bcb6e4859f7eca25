"""Seconds from the start of a Python process to the end of the first step of transformers' Trainer: imports,
`from_pretrained`, 2 x 512 tokens in fp32 or bf16 autocast, clipping, fused AdamW.

    python bench/peers/trainer_load.py MODEL_DIR [--precision bf16|fp32]

Prints {"values": {"load": seconds}, "check": {"first-2x512": loss}}.
"""

import argparse
import json
import os
import tempfile
import time

import numpy
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

ROWS = 2
LENGTH = 512


def process_age_seconds() -> float:
    with open("/proc/self/stat") as file:
        # The fields after the command's name, which may hold spaces; field 22 is the start.
        start_ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK")


class FirstStep(TrainerCallback):
    seconds = 0.0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seconds = process_age_seconds()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    options = parser.parse_args()
    directory = options.model
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokens = numpy.fromfile(f"{directory}/tokens.i32", dtype="<i4")[: ROWS * LENGTH]
    # The first token of a row is no target, and Trainer divides by the labels that are given.
    rows = [
        {"input_ids": row, "labels": numpy.concatenate([[-100], row[1:]])}
        for row in tokens.astype("int64").reshape(ROWS, LENGTH)
    ]
    first_step = FirstStep()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                use_cpu=True,
                bf16=options.precision == "bf16",
                max_steps=1,
                per_device_train_batch_size=ROWS,
                learning_rate=1e-4,
                optim="adamw_torch_fused",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=rows,
            callbacks=[first_step],
        )
        loss = trainer.train().training_loss
    print(json.dumps({"values": {"load": first_step.seconds}, "check": {"first-2x512": loss}}))


if __name__ == "__main__":
    main()
