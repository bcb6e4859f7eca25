"""Makes tests/fixtures/qlora: what peft trains over weights of bitsandbytes' 4 bits.

Usage: python make_qlora_fixture.py MODELS_DIR LORA_DIR OUT_DIR

Needs torch, transformers, peft, accelerate and bitsandbytes 0.50.2. The models are those of MODELS_DIR, loaded by
transformers in 4 bits (nf4, with and without double quantisation), of which every quantised module is made a plain
one of float32 with its dequantised weights; the adapters begin as those of LORA_DIR (make_lora_fixture.py). Of each:
the losses of 5 steps of SGD and of AdamW, and what is trained after them.

bitsandbytes' own kernel for processors dequantises matrices whose rows are no multiple of 64 wrongly, so its generic
one is used. With rows of 64 and more a model of its modules has to have the losses of the plain one.

nf4.json has quantised tensors: whole and short blocks, an odd number of elements, several groups, zeros.
"""

import json
import sys
import tempfile
from pathlib import Path

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from peft import PeftModel
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.pytorch_utils import Conv1D

CASES = {
    "gpt2": (AutoModelForCausalLM, True),
    "llama-gqa-untied": (AutoModelForCausalLM, False),
    "bert-seqcls": (AutoModelForSequenceClassification, True),
}
STEPS = 5
OPTIMIZERS = {
    "sgd": (lambda parameters: torch.optim.SGD(parameters, lr=0.05)),
    "adamw": (lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)),
}


def quantised_model(models: Path, name: str, head: type, double: bool) -> torch.nn.Module:
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
        # peft cannot train a head of 4 bits.
        llm_int8_skip_modules=["lm_head", "classifier"],
    )
    return head.from_pretrained(
        models / name, dtype=torch.float32, quantization_config=config, device_map="cpu"
    )


def dequantised(weight: bnb.nn.Params4bit) -> torch.Tensor:
    state = weight.quant_state
    absmax = state.absmax
    if state.nested:
        absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
    packed = weight.data.reshape(-1)
    return _dequantize_4bit_compute(packed, absmax, state.code, 64, state.shape, torch.float32)


def dequantised_model(models: Path, name: str, head: type, double: bool) -> torch.nn.Module:
    """The same in plain modules."""
    quantised = {
        path: module.weight
        for path, module in quantised_model(models, name, head, double).named_modules()
        if isinstance(module, bnb.nn.Linear4bit)
    }
    model = head.from_pretrained(models / name, dtype=torch.float32)
    with torch.no_grad():
        for path, module in model.named_modules():
            if path in quantised:
                values = dequantised(quantised[path])
                module.weight.copy_(values.T if isinstance(module, Conv1D) else values)
    return model


def check_against_modules() -> None:
    """Two models of rows of 64: of bitsandbytes' modules, and of plain ones."""
    torch.manual_seed(5)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=99,
    )
    tokens = torch.randint(0, 99, (2, 11))
    with tempfile.TemporaryDirectory() as directory:
        LlamaForCausalLM(config).save_pretrained(Path(directory) / "model")
        for double in (False, True):
            losses = []
            for load in (quantised_model, dequantised_model):
                # In evaluation bitsandbytes computes its modules in bfloat16 here.
                model = load(Path(directory), "model", AutoModelForCausalLM, double).train()
                model.enable_input_require_grads()
                losses.append(float(model(input_ids=tokens, labels=tokens).loss))
            print("modules and plain weights:", losses)
            assert abs(losses[0] / losses[1] - 1) < 1e-6


def train(base: torch.nn.Module, adapter: Path, case: dict, optimizer: str):
    torch.manual_seed(0)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    update = OPTIMIZERS[optimizer](list(trained.values()))
    batch = {key: torch.tensor(case[key]) for key in ("input_ids", "attention_mask", "labels")}
    losses = []
    for _ in range(STEPS):
        update.zero_grad()
        loss = model(**batch).loss
        losses.append(float(loss))
        loss.backward()
        update.step()
    plain = {
        key.replace(".default.", ".").replace(".modules_to_save", ""): value.detach().clone()
        for key, value in trained.items()
    }
    return losses, plain


def quantised_tensors() -> dict:
    torch.manual_seed(3)
    shapes = {
        "whole blocks": (8, 320),
        "a short block": (5, 20),
        "odd": (7, 33),
        "groups": (33, 1000),
        "zeros": (4, 64),
    }
    found = {}
    for name, shape in shapes.items():
        numerators = torch.round(torch.randn(shape) * 30).clamp(-128, 127)
        values = numerators / 1024
        if name == "zeros":
            numerators[1:] = values[1:] = 0
        packed, plain = F.quantize_4bit(values, blocksize=64, quant_type="nf4")
        _, double = F.quantize_4bit(
            values, blocksize=64, quant_type="nf4", compress_statistics=True
        )
        found[name] = {
            "shape": list(shape),
            # int8; the values are these numbers over 1024.
            "numerators": numerators.to(torch.int8).numpy().tobytes().hex(),
            "packed": bytes(packed.flatten().tolist()).hex(),
            "absmax": plain.absmax.tolist(),
            "codes": bytes(double.absmax.tolist()).hex(),
            "factors": double.state2.absmax.tolist(),
            "mean": double.offset.item(),
        }
    return found


def main(models: Path, adapters: Path, out: Path) -> None:
    check_against_modules()
    out.mkdir(parents=True, exist_ok=True)
    (out / "nf4.json").write_text(json.dumps(quantised_tensors()))
    losses = {}
    for name, (head, double) in CASES.items():
        case = json.loads((models / name / "case.json").read_text())
        losses[name] = {"double": double}
        tensors = {}
        for optimizer in OPTIMIZERS:
            args = (adapters / name, case, optimizer)
            plain, expected = train(dequantised_model(models, name, head, double), *args)
            print(name, optimizer, plain)
            losses[name][optimizer] = plain
            tensors.update({f"{optimizer}.{key}": value for key, value in expected.items()})
        save_file(tensors, out / f"{name}.safetensors")
    (out / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
