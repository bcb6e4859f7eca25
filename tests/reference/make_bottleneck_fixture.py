"""Makes tests/fixtures/methods/bottleneck-*: adapters of AdapterHub's library over models of tests/fixtures/models.

Usage: python make_bottleneck_fixture.py MODELS_DIR OUT_DIR

Needs torch, transformers 4.57 and adapters 1.3.0 (an environment of their own: peft's has a newer transformers).
A directory is an adapter as the library saves it; the file beside it has logits of the model's case and the steps
that start from the adapter.
"""

import sys
from pathlib import Path

import adapters
import torch
from method_steps import read_case, steps
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

CASES = {
    "gpt2": (AutoModelForCausalLM, "double_seq_bn", dict(reduction_factor=6)),
    "llama-gqa-untied": (AutoModelForCausalLM, "seq_bn", dict(reduction_factor=4)),
    "bert-seqcls": (AutoModelForSequenceClassification, "double_seq_bn", dict(reduction_factor=8)),
    "distilbert-seqcls": (AutoModelForSequenceClassification, "seq_bn", dict(reduction_factor=8)),
}
NAME = "lockstep"


def main(models: Path, out: Path) -> None:
    for name, (head, config, options) in CASES.items():
        torch.manual_seed(7)
        model = head.from_pretrained(models / name, dtype=torch.float32)
        # The path of the machine that made it is nobody's business.
        model.config._name_or_path = model.name_or_path = name
        adapters.init(model)
        model.add_adapter(NAME, config=adapters.AdapterConfig.load(config, **options))
        model.train_adapter(NAME)
        for key, value in model.named_parameters():
            # The library leaves an untied output projection trainable, as it does any head.
            if key.startswith("lm_head."):
                value.requires_grad_(False)
            # Wide enough to be seen in every figure.
            if "adapter_up" in key or "adapter_down" in key:
                torch.nn.init.normal_(value, std=0.2)
        model.eval()
        directory = out / f"bottleneck-{name}"
        model.save_adapter(str(directory), NAME, with_head="seqcls" in name, use_safetensors=True)
        batch = read_case(models / name)
        with torch.no_grad():
            logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        found = steps(model, batch, lambda key: key)
        save_file(found | {"logits": logits}, out / f"bottleneck-{name}.safetensors")
        print(name, [k for k in found if k.startswith("sgd.")][:8], found["sgd.losses"].tolist())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
