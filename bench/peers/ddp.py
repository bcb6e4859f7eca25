"""Optimizer steps of torch's DistributedDataParallel over gloo: two processes on this machine with a thread
each, 8 rows of 512 tokens a step, four micro-batches of one row a rank, reduced with the last of them.

    python bench/peers/ddp.py MODEL_DIR [--precision bf16|fp32] [--repeat N]

Prints {"values": {"two-workers": tokens/s, "worker-memory": GB}, "check": {"loss-1": nats, ...}}: medians of
`--repeat` steps after a warm-up step; the larger peak of resident memory of the two ranks (VmHWM).
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import tempfile
import time

import numpy
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM

RANKS = 2
ROWS = 8
LENGTH = 512
MICRO_BATCHES = ROWS // RANKS
LEARNING_RATE = 1e-4
WARMUP_STEPS = 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    # The ranks read these when they start.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory() as directory:
        mp.spawn(train, (options, f"file://{directory}/store"), nprocs=RANKS)


def train(rank: int, options: argparse.Namespace, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model.train()
    model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    tokens = numpy.fromfile(f"{options.model}/tokens.i32", dtype="<i4").astype("int64")
    steps = WARMUP_STEPS + options.repeat
    # [step, rank, micro-batch, row of one, token]
    batches = torch.from_numpy(tokens[: steps * ROWS * LENGTH]).view(
        steps, RANKS, MICRO_BATCHES, 1, LENGTH
    )
    times, losses = [], []
    for step in range(steps):
        start = time.perf_counter()
        rank_loss = 0.0
        for index, batch in enumerate(batches[step, rank]):
            is_last = index == MICRO_BATCHES - 1
            with contextlib.nullcontext() if is_last else model.no_sync():
                with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
                    loss = model(input_ids=batch, labels=batch, use_cache=False).loss
                (loss / MICRO_BATCHES).backward()
            rank_loss += loss.item() / MICRO_BATCHES
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
        losses.append(rank_loss)
    with open("/proc/self/status") as status:
        peak_bytes = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) * 1024
    # Every row has as many targets, so the mean of means is the mean.
    mean_losses = torch.tensor(losses, dtype=torch.float64) / RANKS
    dist.all_reduce(mean_losses)
    peak = torch.tensor(peak_bytes)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    if rank == 0:
        values = {
            "two-workers": ROWS * LENGTH / statistics.median(times[WARMUP_STEPS:]),
            "worker-memory": peak.item() / 1e9,
        }
        check = {f"loss-{step + 1}": loss for step, loss in enumerate(mean_losses.tolist())}
        print(json.dumps({"values": values, "check": check}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
