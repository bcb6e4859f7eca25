"""One optimizer step of Lockstep against transformers and torch.optim.AdamW on the same blocks.

    node dist/tests/reference/dump.js step step.safetensors CONFIG.yaml --no-bf16 --warmup-steps 0
    python tests/reference/compare_step.py MODEL_DIR step.safetensors

The model runs in float32, without dropout. Its cross-entropy runs in float64, because torch's float32 log_softmax on
the CPU sums a vocabulary of 49,152 some 2e-6 too low, which shifts the loss by as much and gradients of
late norms by 4e-3; `--float32-loss` shows that.

Needs torch, transformers and safetensors. Exits 1 when a bound is exceeded: loss 1e-5 relative, each
gradient 1e-4 and each update 1e-3 of its norm (Adam's first step amplifies rounding).
"""

import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def main(model_dir: str, dump_file: str, loss_dtype: torch.dtype) -> int:
    dump = load_file(dump_file)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model.eval()
    tokens, targets = dump["tokens"].long(), dump["targets"].long()
    num_targets = int((targets != -100).sum())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=float(dump["learning_rate"]), weight_decay=0.0, fused=True
    )
    loss_sum = 0.0
    for row in range(tokens.shape[0]):
        logits = model(input_ids=tokens[row : row + 1]).logits[0].to(loss_dtype)
        nll = torch.nn.functional.cross_entropy(logits, targets[row], reduction="sum")
        loss = nll / num_targets
        loss.backward()
        loss_sum += loss.item()
    parameters = dict(model.named_parameters())
    worst_gradient = max(
        (float((p.grad - dump[f"gradient.{n}"]).norm() / p.grad.norm()), n)
        for n, p in parameters.items()
    )
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    before = {n: p.detach().clone() for n, p in parameters.items()}
    optimizer.step()
    worst_update = max(
        (
            float(
                ((dump[f"after.{n}"] - dump[f"before.{n}"]) - (p.detach() - before[n])).norm()
                / (p.detach() - before[n]).norm()
            ),
            n,
        )
        for n, p in parameters.items()
    )
    loss_error = abs(float(dump["loss"]) / loss_sum - 1)
    print(f"loss      ours {float(dump['loss']):.7f}  torch {loss_sum:.7f}  relative {loss_error:.2e}")
    print(f"grad norm ours {float(dump['gradient_norm']):.7f}  torch {float(norm):.7f}")
    print(f"worst gradient {worst_gradient[0]:.2e} of its norm ({worst_gradient[1]})")
    print(f"worst update   {worst_update[0]:.2e} of its norm ({worst_update[1]})")
    holds = loss_error <= 1e-5 and worst_gradient[0] <= 1e-4 and worst_update[0] <= 1e-3
    print("holds" if holds else "EXCEEDED")
    return 0 if holds else 1


if __name__ == "__main__":
    plain = "--float32-loss" in sys.argv
    sys.exit(main(sys.argv[1], sys.argv[2], torch.float32 if plain else torch.float64))
