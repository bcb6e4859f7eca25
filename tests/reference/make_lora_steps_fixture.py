"""Makes tests/fixtures/lora-steps: steps of torch over adapters of peft for models of tests/fixtures/models.

Usage: python make_lora_steps_fixture.py MODELS_DIR OUT_DIR

Needs torch, transformers and peft. Each directory, of a model's name and a method's, holds the adapter that the
steps begin with, as peft makes it (B is zeros), and NAME.safetensors for each optimizer: the losses of five steps
over the model's case.json, whose tokens are other ones in each step, and all that is trained after them.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer

MODELS = {
    "gpt2": (AutoModelForCausalLM, dict(target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM")),
    "llama-gqa-untied": (AutoModelForCausalLM, dict(target_modules="all-linear", task_type="CAUSAL_LM")),
    "bert-seqcls": (AutoModelForSequenceClassification, dict(task_type="SEQ_CLS")),
}
METHODS = {
    "lora": dict(r=3, lora_alpha=6, rank_pattern={"query": 2, "c_proj": 2}, alpha_pattern={"v_proj": 9}),
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True),
    "dora": dict(r=2, lora_alpha=4, use_dora=True),
}
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, eps=1e-6),
}
NUM_STEPS = 5
WEIGHT_DECAY = 0.1


def plain(key: str) -> str:
    key = key.removeprefix("base_model.model.").replace(".default", "").replace(".modules_to_save", "")
    return key.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def main(models: Path, out: Path) -> None:
    for source, (head, targets) in MODELS.items():
        case = json.loads((models / source / "case.json").read_text())
        batch = {key: torch.tensor(case[key]) for key in ("input_ids", "attention_mask", "labels")}
        for method, options in METHODS.items():
            directory = out / f"{source}-{method}"
            for name, optimizer_of in OPTIMIZERS.items():
                torch.manual_seed(7)
                base = head.from_pretrained(models / source, dtype=torch.float32)
                # The path of the machine that made it is nobody's business.
                base.config._name_or_path = base.name_or_path = source
                model = get_peft_model(base, LoraConfig(**targets, **options)).eval()
                model.save_pretrained(directory)
                (directory / "README.md").unlink()
                trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
                decays = set(Trainer.get_decay_parameter_names(None, model))
                optimizer = optimizer_of(
                    [
                        {"params": [p for k, p in trained.items() if k in decays], "weight_decay": WEIGHT_DECAY},
                        {"params": [p for k, p in trained.items() if k not in decays], "weight_decay": 0.0},
                    ]
                )
                losses = []
                for step in range(NUM_STEPS):
                    ids = (batch["input_ids"] + 3 * step) % base.config.vocab_size
                    loss = model(**{**batch, "input_ids": ids}).loss
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.detach())
                saved = {plain(key): value.detach().clone() for key, value in trained.items()}
                save_file({"losses": torch.stack(losses), **saved}, directory / f"{name}.safetensors")
                print(source, method, name, [round(float(each), 4) for each in losses])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
