"""Writes tests/fixtures/golden/undecayed.json: for each model of tests/fixtures/models, and each adapter of
tests/fixtures/lora on its model, the parameters to which transformers' Trainer applies no weight decay.

Usage: python make_decay_fixture.py OUTPUT_FILE   (in the repository's root; needs torch, transformers and peft)
"""

import json
import sys
from pathlib import Path

import peft
import transformers
from transformers import AutoConfig, Trainer

MODELS = Path("tests/fixtures/models")
ADAPTERS = Path("tests/fixtures/lora")


def build(directory: Path):
    config = AutoConfig.from_pretrained(directory)
    return getattr(transformers, config.architectures[0])._from_config(config)


def undecayed(model) -> list[str]:
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return sorted(name for name in trained if name not in decayed)


def adapted(directory: Path):
    config = peft.LoraConfig.from_pretrained(directory)
    config.inference_mode = False
    return peft.get_peft_model(build(MODELS / directory.name.removesuffix("-dora")), config)


fixture = {
    "transformers": transformers.__version__,
    "models": {each.name: undecayed(build(each)) for each in sorted(MODELS.iterdir())},
    "adapters": {
        each.name: [
            name.removeprefix("base_model.model.").replace("modules_to_save.default.", "").replace(".default", "")
            for name in undecayed(adapted(each))
        ]
        for each in sorted(ADAPTERS.iterdir())
    },
}
with open(sys.argv[1], "w") as file:
    json.dump(fixture, file)
