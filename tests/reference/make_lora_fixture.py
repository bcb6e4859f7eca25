"""Makes tests/fixtures/lora: adapters of peft for models of tests/fixtures/models, with what they give.

Usage: python make_lora_fixture.py MODELS_DIR OUT_DIR

Needs torch, transformers and peft. Each directory, of the model's name and perhaps `-dora`, holds a saved
adapter whose B is not zero, and expected.safetensors: loss of the model's case.json and its gradient with
respect to everything trained.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

CASES = {
    "gpt2": (AutoModelForCausalLM, dict(r=4, lora_alpha=8, task_type="CAUSAL_LM")),
    "llama-gqa-untied": (
        AutoModelForCausalLM,
        dict(
            r=3, lora_alpha=5, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    ),
    "bert-seqcls": (
        AutoModelForSequenceClassification,
        dict(
            r=2,
            lora_alpha=6,
            task_type="SEQ_CLS",
            rank_pattern={"query": 3},
            alpha_pattern={"query": 4},
        ),
    ),
    "gpt2-dora": (
        AutoModelForCausalLM,
        dict(r=3, lora_alpha=6, use_dora=True, task_type="CAUSAL_LM"),
    ),
    "llama-gqa-untied-dora": (
        AutoModelForCausalLM,
        dict(r=2, lora_alpha=3, use_dora=True, target_modules="all-linear", task_type="CAUSAL_LM"),
    ),
    "bert-seqcls-dora": (
        AutoModelForSequenceClassification,
        dict(r=2, lora_alpha=4, use_dora=True, use_rslora=True, task_type="SEQ_CLS"),
    ),
}


def main(models: Path, out: Path) -> None:
    for name, (head, options) in CASES.items():
        torch.manual_seed(7)
        source = name.removesuffix("-dora")
        base = head.from_pretrained(models / source, dtype=torch.float32)
        # The path of the machine that made it is nobody's business.
        base.config._name_or_path = base.name_or_path = source
        model = get_peft_model(base, LoraConfig(**options)).eval()
        trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
        with torch.no_grad():
            for key, value in trained.items():
                if "lora_B" in key:
                    value.normal_(std=0.3)
                elif "lora_magnitude_vector" in key:
                    value.mul_(1 + 0.2 * torch.rand_like(value))
        case = json.loads((models / source / "case.json").read_text())
        batch = {
            key: torch.tensor(case[key]) for key in ("input_ids", "attention_mask", "labels")
        }
        loss = model(**batch).loss
        loss.backward()
        model.save_pretrained(out / name)
        (out / name / "README.md").unlink()
        saved = {"loss": loss.detach()}
        for key, value in trained.items():
            plain = key.replace(".default.", ".").replace(".modules_to_save", "")
            plain = plain.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
            saved[f"grad.{plain}"] = value.grad
        save_file(saved, out / name / "expected.safetensors")
        print(name, float(loss), case["loss"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
