"""Forward and backward of GPT-2 124M with random weights in torch: one JSON line, as bench/step.ts prints."""

import argparse
import contextlib
import json
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

parser = argparse.ArgumentParser()
parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
parser.add_argument("--rows", type=int, default=8)
parser.add_argument("--tokens", type=int, default=1024)
parser.add_argument("--repeat", type=int, default=10)
parser.add_argument("--device", default="cuda")
options = parser.parse_args()

torch.backends.cuda.matmul.allow_tf32 = False
model = GPT2LMHeadModel(
    GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, attn_implementation="sdpa")
).to(options.device)
ids = torch.randint(0, 50257, (options.rows, options.tokens), device=options.device)
autocast = (
    torch.autocast(options.device.split(":")[0], torch.bfloat16)
    if options.precision == "bf16"
    else contextlib.nullcontext()
)
on_gpu = options.device != "cpu"
seconds = []
for _ in range(options.repeat + 2):
    start = time.perf_counter()
    with autocast:
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    model.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)
seconds = sorted(seconds[2:])
peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
print(
    json.dumps(
        {
            "precision": options.precision,
            "rows": options.rows,
            "tokens": options.tokens,
            "microBatchSeconds": round(seconds[len(seconds) // 2], 5),
            "peakGpuMemoryGiB": peak and round(peak, 2),
        }
    )
)
