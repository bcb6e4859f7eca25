"""Validation loss of a result directory in transformers, on the blocks that Lockstep used.

    node dist/tests/reference/dump.js validation blocks.safetensors CONFIG.yaml
    python tests/reference/compare_validation.py RESULT_DIR blocks.safetensors [LOSS]

Needs torch, transformers and safetensors. With LOSS, what Lockstep printed, exits 1 when the two
differ by more than 0.5 %.
"""

import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def main(result_dir: str, blocks_file: str, expected: str | None) -> int:
    blocks = load_file(blocks_file)
    model = AutoModelForCausalLM.from_pretrained(result_dir, dtype=torch.float32).eval()
    tokens = blocks["tokens"].long()
    targets = blocks["targets"].long()
    nll_sum, num_targets = 0.0, 0
    with torch.no_grad():
        for row in range(tokens.shape[0]):
            logits = model(input_ids=tokens[row : row + 1]).logits[0]
            nll_sum += float(
                torch.nn.functional.cross_entropy(logits, targets[row], reduction="sum")
            )
            num_targets += int((targets[row] != -100).sum())
    loss = nll_sum / num_targets
    print(f"transformers: {loss:.6f} nats over {num_targets} tokens")
    if expected is None:
        return 0
    error = abs(float(expected) / loss - 1)
    print(f"lockstep:     {float(expected):.6f}, relative difference {error:.2e}")
    return 0 if error <= 5e-3 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
