"""Writes tests/fixtures/logits_processors.json: scores before and after transformers' processors.

Usage: python make_logits_fixture.py OUTPUT_FILE   (needs torch and transformers)

A removed score is null. Top-p cases keep away from sums that lie within rounding of 1 - p.
"""

import json
import sys

import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCABULARY = 32
CASES = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 100},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.01},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.85},
    {"repetition_penalty": 1.2, "temperature": 1.4, "top_k": 20, "top_p": 0.95},
]
PROCESSORS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
}


def main() -> None:
    generator = torch.Generator().manual_seed(7)
    out = []
    for options in CASES:
        tokens = torch.randint(0, VOCABULARY, (1, 9), generator=generator)
        scores = 2.5 * torch.randn(1, VOCABULARY, generator=generator)
        # Ties, one of them across the border of a top-5.
        scores[0, 3] = scores[0, 17]
        scores[0, scores.argsort()[0, -5]] = scores[0, scores.argsort()[0, -6]]
        chain = LogitsProcessorList([PROCESSORS[name](value) for name, value in options.items()])
        result = chain(tokens, scores.clone())[0].tolist()
        out.append(
            {
                "options": options,
                "tokens": tokens[0].tolist(),
                "scores": scores[0].tolist(),
                "expected": [None if value == -float("inf") else value for value in result],
            }
        )
    with open(sys.argv[1], "w") as file:
        json.dump(out, file)


if __name__ == "__main__":
    main()
