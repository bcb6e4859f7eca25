"""Seconds of a whole optimizer step: forward, backward, clip, fused AdamW.

    python bench/peers/step.py MODEL_DIR --precision bf16|fp32 --shapes ROWSxTOKENS,... [--device cuda]
        [--compile CACHE_DIR]

Prints {"values": {"step-2x512": seconds, "micro-batch-2x512": seconds}, "check": {"first-2x512": loss,
"last-2x512": loss}}: medians of `--repeat` steps after a warm-up step, and of what of them passes until
backward is done; the losses of the first and the last step. Every shape starts from the directory's weights.
With --compile the model goes through torch.compile as it is by default, before the times that count; what it
makes is kept in the folder.
"""

import argparse
import copy
import json
import os
import statistics
import time

import numpy
import torch
import torch._inductor.config
from transformers import AutoModelForCausalLM

LEARNING_RATE = 1e-4
WARMUP_STEPS = 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--shapes", default="2x512")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", metavar="CACHE_DIR")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    if options.compile:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = options.compile
        if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
            # Else g++ compiles the kernels for all that the processor has.
            torch._inductor.config.cpp.march = "x86-64-v3"
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    base.to(options.device)
    tokens = numpy.fromfile(f"{options.model}/tokens.i32", dtype="<i4")
    values, check = {}, {}
    for shape in options.shapes.split(","):
        rows, length = map(int, shape.split("x"))
        batch = torch.from_numpy(tokens[: rows * length].astype("int64")).view(rows, length).to(options.device)
        model = copy.deepcopy(base)
        if options.compile:
            torch._dynamo.reset()
            model.compile(dynamic=False)
        times, backward_times, losses = steps(model, batch, options)
        values[f"step-{shape}"] = statistics.median(times)
        values[f"micro-batch-{shape}"] = statistics.median(backward_times)
        check[f"first-{shape}"], check[f"last-{shape}"] = losses[0], losses[-1]
    print(json.dumps({"values": values, "check": check}))


def steps(model: torch.nn.Module, batch: torch.Tensor, options) -> tuple[list[float], ...]:
    """Seconds of each step, seconds until its backward is done, its loss."""
    device_type = options.device.split(":")[0]
    wait = torch.cuda.synchronize if device_type == "cuda" else lambda: None
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    times, backward_times, losses = [], [], []
    for _ in range(WARMUP_STEPS + options.repeat):
        start = time.perf_counter()
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=options.precision == "bf16"):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        wait()
        backward_times.append(time.perf_counter() - start)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        wait()
        times.append(time.perf_counter() - start)
    return times[WARMUP_STEPS:], backward_times[WARMUP_STEPS:], losses


if __name__ == "__main__":
    main()
