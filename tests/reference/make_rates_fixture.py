"""Writes tests/fixtures/golden/rates.json: ten steps of torch.optim.AdamW with a parameter group for each rate, and
the rates that peft's LoRA+ gives the parameters of a small Llama.

Usage: python make_rates_fixture.py OUTPUT_FILE   (in the repository's root; needs torch, transformers and peft)

The groups are made here of the definitions: axolotl's lr_groups and embedding_lr, and ELECTRA's layer-wise decay.
"""

import json
import sys

import peft
import torch
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM

RATE = 0.01
WEIGHT_DECAY = 0.1
SCHEDULE = [1 / (1 + step) for step in range(10)]
SHAPES = {
    "lm_head.weight": [6, 4],
    "model.embed_tokens.weight": [6, 4],
    "model.layers.0.input_layernorm.weight": [4],
    "model.layers.0.mlp.up_proj.weight": [5, 4],
    "model.layers.0.self_attn.q_proj.bias": [4],
    "model.layers.0.self_attn.q_proj.weight": [4, 4],
    "model.layers.1.input_layernorm.weight": [4],
    "model.layers.1.mlp.up_proj.weight": [5, 4],
    "model.layers.1.self_attn.q_proj.bias": [4],
    "model.layers.1.self_attn.q_proj.weight": [4, 4],
    "model.norm.weight": [4],
}
NUM_LAYERS = 2


def depth(name: str) -> int:
    """Layers above, the top included: 0 for what is above all layers."""
    if ".layers." in name:
        return NUM_LAYERS - int(name.split(".")[2])
    return NUM_LAYERS + 1 if "embed_tokens" in name else 0


GROUPS = [
    {"name": "queries", "modules": ["layers.1.self_attn", "q_proj"], "lr": 0.002},
    {"name": "mlp", "modules": ["mlp", "layers.0"], "lr": 0.03},
]


def grouped(name: str) -> float:
    for group in GROUPS:
        if any(module in name for module in group["modules"]):
            return group["lr"]
    return RATE


is_embedding = lambda name: "embed_tokens" in name or "lm_head" in name
CASES = [
    ({"layerwise_lr_decay": 0.8}, lambda name: RATE * 0.8 ** depth(name)),
    ({"lr_groups": GROUPS}, grouped),
    ({"embedding_lr": 0.0003}, lambda name: 0.0003 if is_embedding(name) else RATE),
    ({"embedding_lr_scale": 0.25}, lambda name: RATE * 0.25 if is_embedding(name) else RATE),
    (
        {"layerwise_lr_decay": 0.5, "embedding_lr": 0.02, "lr_groups": GROUPS[:1]},
        lambda name: 0.002
        if "q_proj" in name or "layers.1.self_attn" in name
        else (0.02 if is_embedding(name) else RATE * 0.5 ** depth(name)),
    ),
]


def run(rate_of, start: dict, gradients: list[dict]) -> list[dict]:
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    groups = [
        {"params": [parameter], "lr": rate_of(name), "weight_decay": WEIGHT_DECAY if parameter.ndim > 1 else 0.0}
        for name, parameter in parameters.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, foreach=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: SCHEDULE[min(step, 9)])
    after = []
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].clone()
        optimizer.step()
        scheduler.step()
        after.append(lists(parameters))
    return after


def lora_plus() -> dict:
    base = AutoModelForCausalLM.from_pretrained("tests/fixtures/huggingface/base_llama")
    config = peft.LoraConfig(target_modules="all-linear", modules_to_save=["norm"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=16)
    names = {parameter: name for name, parameter in model.named_parameters()}
    short = lambda name: name.removeprefix("base_model.model.").replace("modules_to_save.default.", "").replace(".default", "")
    return {short(names[each]): group["lr"] for group in optimizer.param_groups for each in group["params"]}


torch.manual_seed(0)
draw = lambda: {name: torch.randn(shape) for name, shape in SHAPES.items()}
# Nine digits are a float32.
digits = lambda values: [float(f"{value:.9g}") for value in values]
lists = lambda each: {name: digits(tensor.detach().flatten().tolist()) for name, tensor in each.items()}
start = draw()
gradients = [draw() for _ in SCHEDULE]
fixture = {
    "torch": torch.__version__,
    "peft": peft.__version__,
    "learning_rate": RATE,
    "weight_decay": WEIGHT_DECAY,
    "schedule": SCHEDULE,
    "shapes": SHAPES,
    "start": lists(start),
    "gradients": [lists(each) for each in gradients],
    "cases": [
        {
            "settings": settings,
            "rates": {name: rate_of(name) for name in SHAPES},
            "after": run(rate_of, start, gradients),
        }
        for settings, rate_of in CASES
    ],
    "lora_plus": {"ratio": 16, "rates": lora_plus()},
}
with open(sys.argv[1], "w") as file:
    json.dump(fixture, file)
