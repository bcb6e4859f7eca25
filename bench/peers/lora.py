"""Seconds of a whole LoRA step with peft: forward, backward, clip, fused AdamW on the adapter.

    python bench/peers/lora.py MODEL_DIR ADAPTER_DIR --write
    python bench/peers/lora.py MODEL_DIR ADAPTER_DIR [--precision bf16|fp32] --shapes ROWSxTOKENS,...

`--write` saves the adapter that both sides start from, peft's usual one for the model with a seeded B that
is not zero. Otherwise prints {"values": {"step-2x512": seconds}, "check": {"first-2x512": loss,
"last-2x512": loss}}: medians of `--repeat` steps after a warm-up step; the losses of the first and the
last step. In bf16 the frozen weights are bfloat16, as LoRA is usually run: float32 ones would be cast anew
in every step. The adapter and its optimizer are float32, products bf16 by autocast.
"""

import argparse
import json
import statistics

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from step import steps

CONFIG = LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", fan_in_fan_out=True)


def write(model: str, adapter: str) -> None:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    peft_model = get_peft_model(base, CONFIG)
    with torch.no_grad():
        for name, weight in peft_model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    peft_model.save_pretrained(adapter)
    print(json.dumps({"values": {"parameters": peft_model.num_parameters(only_trainable=True)}}))


def measure(options: argparse.Namespace) -> None:
    tokens = numpy.fromfile(f"{options.model}/tokens.i32", dtype="<i4")
    values, check = {}, {}
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    for shape in options.shapes.split(","):
        rows, length = map(int, shape.split("x"))
        batch = torch.from_numpy(tokens[: rows * length].astype("int64")).view(rows, length)
        base = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
        model = PeftModel.from_pretrained(base, options.adapter, is_trainable=True)
        times, backward_times, losses = steps(model, batch, options)
        values[f"step-{shape}"] = statistics.median(times)
        values[f"micro-batch-{shape}"] = statistics.median(backward_times)
        check[f"first-{shape}"], check[f"last-{shape}"] = losses[0], losses[-1]
    print(json.dumps({"values": values, "check": check}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--shapes", default="2x512")
    parser.add_argument("--repeat", type=int, default=3)
    parser.set_defaults(device="cpu")
    options = parser.parse_args()
    write(options.model, options.adapter) if options.write else measure(options)


if __name__ == "__main__":
    main()
