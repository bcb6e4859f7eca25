"""New tokens a second of transformers' greedy `generate` with its cache, prompt included in the time.

    python bench/peers/generate.py MODEL_DIR [--precision bf16|fp32] [--prompt 32] [--new 64] [--repeat 5]

Prints {"values": {"generate-1": tokens/s, "generate-8": tokens/s}, "check": {"token-0": id, ...}}: medians
after a warm-up, and the first tokens of a greedy continuation in fp32.
"""

import argparse
import json
import statistics
import time

import numpy
import torch
from transformers import AutoModelForCausalLM

BATCHES = [1, 8]
CHECKED_TOKENS = 12


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    tokens = numpy.fromfile(f"{options.model}/tokens.i32", dtype="<i4").astype("int64")

    def generate(model: torch.nn.Module, rows: int, new: int) -> torch.Tensor:
        prompts = torch.from_numpy(tokens[: rows * options.prompt]).view(rows, options.prompt)
        with torch.inference_mode():
            texts = model.generate(
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=False,
                use_cache=True,
                min_new_tokens=new,
                max_new_tokens=new,
                pad_token_id=50256,
            )
        return texts[:, options.prompt :]

    wide = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    greedy = generate(wide, 1, CHECKED_TOKENS)[0].tolist()
    model = wide.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
    values = {}
    for rows in BATCHES:
        times = []
        for _ in range(1 + options.repeat):
            start = time.perf_counter()
            generate(model, rows, options.new)
            times.append(time.perf_counter() - start)
        values[f"generate-{rows}"] = rows * options.new / statistics.median(times[1:])
    check = {f"token-{index}": token for index, token in enumerate(greedy)}
    print(json.dumps({"values": values, "check": check}))


if __name__ == "__main__":
    main()
