"""Loss and greedy continuation of adapters in peft, and of the models that they were merged into.

    python tests/reference/adapter_losses.py MANIFEST.json

A case has a base model of bytes (a byte b is the token 4 + b, 2 ends an answer), an adapter, the merged
model and rows of prompt and completion. `tied-adapters.test.ts` compares with the run that made
the adapter. Needs torch, transformers and peft. Prints one object of JSON a case.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")


def ids(text: str) -> list[int]:
    return [byte + 4 for byte in text.encode()]


@torch.no_grad()
def loss_of(model, rows: list[dict]) -> float:
    total, count = 0.0, 0
    for row in rows:
        prompt, answer = ids(row["prompt"]), ids(row["completion"]) + [2]
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
        targets = torch.tensor(answer)
        predicted = logits[len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(predicted, targets, reduction="sum").item()
        count += len(answer)
    return total / count


@torch.no_grad()
def continuation(model, prompt: str) -> list[int]:
    inputs = torch.tensor([ids(prompt)])
    tokens = model.generate(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=6, do_sample=False
    )[0]
    return [token for token in tokens[inputs.shape[1] :].tolist() if token != 2]


def load(directory: str):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


for case in json.loads(Path(sys.argv[1]).read_text()):
    rows = [json.loads(line) for line in Path(case["rows"]).read_text().splitlines()]
    adapted = PeftModel.from_pretrained(load(case["base"]), case["adapter"]).eval()
    # What peft itself would have trained and saved for this configuration.
    config = PeftConfig.from_pretrained(case["adapter"])
    config.inference_mode = False
    expected = get_peft_model_state_dict(get_peft_model(load(case["base"]), config))
    with safe_open(Path(case["adapter"]) / "adapter_model.safetensors", "pt") as file:
        shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}
    merged = load(case["merged"])
    result = {
        "name": case["name"],
        "base": loss_of(load(case["base"]), rows),
        "adapted": loss_of(adapted, rows),
        "merged": loss_of(merged, rows),
        "tokens": continuation(adapted, case["prompt"]),
        "isTied": merged.config.tie_word_embeddings,
        "keys": shapes,
        # Base weights that peft adds where a head has an adapter.
        "expected": {k: list(v.shape) for k, v in expected.items() if ".base_layer." not in k},
    }
    print(json.dumps(result), flush=True)
