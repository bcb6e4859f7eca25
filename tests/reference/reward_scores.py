"""Prints the rewards that transformers gives texts, a JSON list.

    python tests/reference/reward_scores.py DIRECTORY TEXT ...

Needs torch and transformers.
"""

import json
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

directory, *texts = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(directory)
with torch.no_grad():
    rewards = [model(**tokenizer(text, return_tensors="pt")).logits for text in texts]
assert all(reward.shape == (1, 1) for reward in rewards)
print(json.dumps([reward.item() for reward in rewards]))
