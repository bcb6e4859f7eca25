"""Texts a second of a classifier's forward pass in transformers, at batch 1 and 8.

    python bench/peers/classify.py MODEL_DIR [--precision bf16|fp32] [--length 128] [--repeat 50]

Prints {"values": {"classify-1": texts/s, "classify-8": texts/s}, "check": {"logit-0": ..., ...}}: medians
after a warm-up, and the first text's logits in fp32. In bf16 the faster of two forms counts: weights in
bf16, and autocast.
"""

import argparse
import copy
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

    def logits(model: torch.nn.Module, rows: int, autocast: bool = False) -> torch.Tensor:
        texts = torch.from_numpy(tokens[: rows * options.length]).view(rows, options.length)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model(input_ids=texts, attention_mask=torch.ones_like(texts)).logits

    wide = AutoModelForSequenceClassification.from_pretrained(options.model).eval()
    expected = logits(wide, 1)[0].tolist()
    forms = [(wide, False)]
    if options.precision == "bf16":
        forms = [(wide, True), (copy.deepcopy(wide).to(torch.bfloat16), False)]

    def seconds(rows: int, model: torch.nn.Module, autocast: bool) -> float:
        times = []
        for _ in range(WARMUPS + options.repeat):
            start = time.perf_counter()
            logits(model, rows, autocast)
            times.append(time.perf_counter() - start)
        return statistics.median(times[WARMUPS:])

    values = {
        f"classify-{rows}": rows / min(seconds(rows, *form) for form in forms) for rows in BATCHES
    }
    check = {f"logit-{index}": value for index, value in enumerate(expected)}
    print(json.dumps({"values": values, "check": check}))


if __name__ == "__main__":
    main()
