"""Rows a second of a classifier's forward pass in transformers.

    python bench/peers/classify_forward.py MODEL_DIR [--precision bf16|fp32] [--tokens 128] [--repeat 15]

Prints {"values": {"classify-1": rows/s, "classify-8": rows/s}, "check": {"margin-0": number, ...}}: medians
after two warm-ups, and the difference of the two logits of each row in fp32.
"""

import argparse
import json
import statistics
import time

import numpy
import torch
from transformers import AutoModelForSequenceClassification

BATCHES = [1, 8]
WARMUP_RUNS = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    tokens = numpy.fromfile(f"{options.model}/tokens.i32", dtype="<i4").astype("int64")

    def logits(model: torch.nn.Module, rows: int) -> torch.Tensor:
        batch = torch.from_numpy(tokens[: rows * options.tokens]).view(rows, options.tokens)
        with torch.inference_mode():
            return model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits

    wide = AutoModelForSequenceClassification.from_pretrained(
        options.model, dtype=torch.float32
    ).eval()
    margins = (lambda pairs: pairs[:, 1] - pairs[:, 0])(logits(wide, max(BATCHES))).tolist()
    model = wide.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
    values = {}
    for rows in BATCHES:
        times = []
        for _ in range(WARMUP_RUNS + options.repeat):
            start = time.perf_counter()
            logits(model, rows)
            times.append(time.perf_counter() - start)
        values[f"classify-{rows}"] = rows / statistics.median(times[WARMUP_RUNS:])
    check = {f"margin-{row}": margin for row, margin in enumerate(margins)}
    print(json.dumps({"values": values, "check": check}))


if __name__ == "__main__":
    main()
