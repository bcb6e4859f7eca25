"""Logits of models of tests/fixtures/models behind virtual tokens that Lockstep saved, as peft computes them.

    python tests/reference/prompt_logits.py MODELS_DIR OUT_FILE NAME=DIRECTORY ...

OUT_FILE has a tensor a name. Needs torch, transformers and peft.
"""

import sys
from pathlib import Path

from method_steps import read_case
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

models, out = Path(sys.argv[1]), sys.argv[2]
found = {}
for argument in sys.argv[3:]:
    name, directory = argument.split("=", 1)
    head = AutoModelForSequenceClassification if "seqcls" in name else AutoModelForCausalLM
    model = PeftModel.from_pretrained(head.from_pretrained(models / name), directory).eval()
    batch = read_case(models / name)
    found[name] = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.detach()
save_file(found, out)
