"""Texts a second of a classifier's forward pass in transformers, at batch 1 and 8.

    python bench/peers/classify.py MODEL_DIR [--precision bf16|fp32] [--length 128] [--repeat 50]

Prints {"values": {"classify-1": texts/s, "classify-8": texts/s}, "check": {"logit-0": ..., ...}}: medians
after a warm-up, and the first text's logits in fp32. Weights are cast to bf16 once, which is faster than
autocast.
"""

import argparse
import json
import statistics
import time

import numpy
import torch
from transformers import AutoModelForSequenceClassification

BATCHES = [1, 8]
WARMUPS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    tokens = numpy.fromfile(f"{options.model}/tokens.i32", dtype="<i4").astype("int64")

    def logits(model: torch.nn.Module, rows: int) -> torch.Tensor:
        texts = torch.from_numpy(tokens[: rows * options.length]).view(rows, options.length)
        with torch.inference_mode():
            return model(input_ids=texts, attention_mask=torch.ones_like(texts)).logits

    wide = AutoModelForSequenceClassification.from_pretrained(options.model).eval()
    expected = logits(wide, 1)[0].tolist()
    model = wide.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
    values = {}
    for rows in BATCHES:
        times = []
        for _ in range(WARMUPS + options.repeat):
            start = time.perf_counter()
            logits(model, rows)
            times.append(time.perf_counter() - start)
        values[f"classify-{rows}"] = rows / statistics.median(times[WARMUPS:])
    check = {f"logit-{index}": value for index, value in enumerate(expected)}
    print(json.dumps({"values": values, "check": check}))


if __name__ == "__main__":
    main()
