"""Makes tests/fixtures/methods/prompt-*: prompt tuning of peft over models of tests/fixtures/models.

Usage: python make_prompt_fixture.py MODELS_DIR OUT_DIR

Needs torch, transformers and peft. A directory is an adapter as peft saves it, with logits of the model's case;
the file beside it has the steps that start from it.
"""

import sys
from pathlib import Path

import torch
from method_steps import read_case, steps
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

CASES = {
    "gpt2": (AutoModelForCausalLM, dict(task_type="CAUSAL_LM", num_virtual_tokens=5)),
    "llama-gqa-untied": (AutoModelForCausalLM, dict(task_type="CAUSAL_LM", num_virtual_tokens=3)),
    "bert-seqcls": (
        AutoModelForSequenceClassification,
        dict(task_type="SEQ_CLS", num_virtual_tokens=4),
    ),
    # Its configuration has no name of these sizes that peft knows.
    "distilbert-seqcls": (
        AutoModelForSequenceClassification,
        dict(task_type="SEQ_CLS", num_virtual_tokens=3, token_dim=24, num_layers=2, num_attention_heads=3),
    ),
}


def name_of(key: str) -> str:
    if "prompt_encoder" in key:
        return "prompt_embeddings"
    return key.removeprefix("base_model.").replace(".modules_to_save.default", "")


def main(models: Path, out: Path) -> None:
    for name, (head, options) in CASES.items():
        torch.manual_seed(7)
        base = head.from_pretrained(models / name, dtype=torch.float32)
        # The path of the machine that made it is nobody's business.
        base.config._name_or_path = base.name_or_path = name
        model = get_peft_model(base, PromptTuningConfig(**options)).eval()
        batch = read_case(models / name)
        directory = out / f"prompt-{name}"
        model.save_pretrained(directory)
        (directory / "README.md").unlink()
        with torch.no_grad():
            logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        found = steps(model, batch, name_of)
        save_file(found | {"logits": logits}, out / f"prompt-{name}.safetensors")
        print(name, [k for k in found if k.startswith("sgd.")], found["sgd.losses"].tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
