"""Runs the lines of Python that Lockstep prints, and computes with what they made.

    python tests/reference/run_python_lines.py MANIFEST.json

A case has the lines, the directory in which they are typed, and either prompts (continued greedily)
or texts (classified, each alone, with the tokenizer that the lines made). `python-lines.test.ts`
compares with bin/lockstep. Needs torch, transformers and peft. Prints one object of JSON a case.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")


def run(case: dict) -> dict:
    os.chdir(case["directory"])
    made: dict = {}
    exec("\n".join(case["lines"]), made)
    model, tokenizer = made["model"], made["tokenizer"]
    assert not model.training
    with torch.no_grad():
        if "prompts" in case:
            continued = []
            for prompt in case["prompts"]:
                inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
                tokens = model.generate(**inputs, max_new_tokens=case["new"], do_sample=False)[0]
                tokens = tokens[inputs["input_ids"].shape[1] :].tolist()
                continued.append([token for token in tokens if token != tokenizer.eos_token_id])
            return {"tokens": continued}
        names = model.config.id2label
        scores = []
        for texts in case["texts"]:
            logits = model(**tokenizer(*texts, return_tensors="pt")).logits[0]
            values = torch.softmax(logits.double(), -1).tolist()
            scores.append({names[i]: value for i, value in enumerate(values)})
        return {"scores": scores}


for each in json.loads(Path(sys.argv[1]).read_text()):
    print(json.dumps({"name": each["name"], **run(each)}), flush=True)
