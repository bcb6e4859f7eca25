"""Writes tests/fixtures/generation.json: what transformers' generate gives for models of the fixtures.

Usage: python make_generation_fixture.py MODELS_DIR OUTPUT_FILE   (needs torch and transformers)

MODELS_DIR is tests/fixtures/models. Prompts of different lengths are continued one by one, and in one
batch padded on the left; the script fails where transformers itself gives two answers.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

MODELS = ["gpt2", "llama-yarn", "mistral-window8", "qwen2-window", "qwen3-qknorm", "gemma2", "gemma3"]
SETTINGS = [{}, {"repetition_penalty": 1.3}, {"repetition_penalty": 0.8}]
LENGTHS = [3, 11, 7]
NEW_TOKENS = 15
PAD = 0


def run(model, prompts: list[list[int]], **settings) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=PAD,
        **settings,
    )
    return [trimmed(row[longest:].tolist(), settings.get("eos_token_id")) for row in out]


def trimmed(tokens: list[int], ends: list[int] | None) -> list[int]:
    """Without the first end token and what follows it."""
    for index, token in enumerate(tokens):
        if ends is not None and token in ends:
            return tokens[:index]
    return tokens


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    out = []
    for name in MODELS:
        directory = Path(sys.argv[1]) / name
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        model.generation_config.eos_token_id = None
        row = json.loads((directory / "case.json").read_text())["input_ids"][0]
        prompts = [row[start : start + length] for start, length in enumerate(LENGTHS)]
        free = [run(model, [prompt])[0] for prompt in prompts]
        ends = [free[0][2], free[1][6]]
        for settings in [*SETTINGS, {"eos_token_id": ends}]:
            singles = [run(model, [prompt], **settings)[0] for prompt in prompts]
            # A penalty would count the padding of a batch too.
            if "repetition_penalty" not in settings and run(model, prompts, **settings) != singles:
                sys.exit(f"{name}: a batch gives other tokens than its prompts one by one")
            out.append(
                {"model": name, "prompts": prompts, "settings": settings, "continuations": singles}
            )
    Path(sys.argv[2]).write_text(json.dumps(out))


if __name__ == "__main__":
    main()
