"""Records what transformers computes with a model, for `lockstep verify-model` to compare.

Usage: python make_case.py MODEL_DIR [--out DIR] [--length 17] [--new-tokens 12] [--seed 0]

Needs torch, transformers and safetensors. Writes into DIR (the model's directory by default):

case.json             input_ids, attention_mask and labels (rows of three lengths, padded on the right;
                      one row for a classifier without a padding token),
                      the loss, and for a causal model the greedy continuation of the first row's start
expected.safetensors  `logits`, and `grad.NAME` for every parameter, all float32

Everything is computed in float32 with eager attention, without dropout.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

NOTE = (
    "loss is the mean over labels that are not -100 (causal models shift inside); "
    "logits at masked positions are not meaningful"
)
IGNORED = -100


def load(directory: Path, kind: str) -> transformers.PreTrainedModel:
    model, info = getattr(transformers, kind).from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    # transformers would make them at random.
    if info["missing_keys"]:
        sys.exit(f"{directory} has no {', '.join(sorted(info['missing_keys']))} for {kind}")
    return model.eval()


def class_name(config: transformers.PretrainedConfig) -> str:
    name = (config.architectures or [""])[0]
    if name.endswith(("ForCausalLM", "LMHeadModel", "ForSequenceClassification")):
        return name
    return "AutoModelForCausalLM"


def make_inputs(config: transformers.PretrainedConfig, length: int, seed: int, is_padded: bool):
    """Three rows of `length`, about 3/4 and 1/2 of it, of tokens that are not special ones."""
    generator = torch.Generator().manual_seed(seed)
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    lengths = [length, max(1, length * 3 // 4), max(1, length // 2)] if is_padded else [length]
    ids = torch.randint(3, config.vocab_size, (len(lengths), length), generator=generator)
    # A classifier on a decoder takes the last token that is not padding.
    ids[ids == pad] = 3 if pad != 3 else 4
    mask = torch.zeros_like(ids)
    for row, row_length in enumerate(lengths):
        mask[row, :row_length] = 1
    return torch.where(mask == 1, ids, pad), mask


def make_labels(config, is_classifier: bool, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if not is_classifier:
        labels = ids.masked_fill(mask == 0, IGNORED)
        # As after a prompt: tokens of the model's input that are no one's answer.
        for row, answer_start in enumerate([4, 2]):
            labels[row, :answer_start] = IGNORED
        return labels
    rows, count = ids.shape[0], config.num_labels
    kind = config.problem_type or ("regression" if count == 1 else "single_label_classification")
    if kind == "single_label_classification":
        return torch.arange(rows) % count
    if kind == "multi_label_classification":
        return ((torch.arange(rows)[:, None] + torch.arange(count)) % 2).float()
    values = torch.arange(rows * count).float().reshape(rows, count) / 4 - 0.5
    return values[:, 0] if count == 1 else values


def greedy(directory: Path, kind: str, prompt: list[int], new_tokens: int) -> list[int]:
    # A model of its own: dynamic rotary frequencies remember the longest input so far. Without a
    # cache: keys in a cache keep the frequencies of the length they were computed at.
    model = load(directory, kind)
    out = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=new_tokens,
        do_sample=False,
        repetition_penalty=1.0,
        use_cache=False,
    )
    return out[0, len(prompt) :].tolist()


def make_case(directory: Path, out: Path, length: int = 17, new_tokens: int = 12, seed: int = 0):
    config = transformers.AutoConfig.from_pretrained(directory)
    kind = class_name(config)
    is_classifier = kind.endswith("ForSequenceClassification")
    model = load(directory, kind)
    # Without a padding token a classifier on a decoder takes one row only.
    is_padded = not is_classifier or config.pad_token_id is not None
    ids, mask = make_inputs(config, length, seed, is_padded)
    labels = make_labels(config, is_classifier, ids, mask)
    result = model(input_ids=ids, attention_mask=mask, labels=labels)
    result.loss.backward()
    tensors = {"logits": result.logits.detach().contiguous()}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        tensors[f"grad.{name}"] = gradient.contiguous()
    case = {
        "input_ids": ids.tolist(),
        "attention_mask": mask.tolist(),
        "labels": labels.tolist(),
        "loss": result.loss.item(),
        "note": NOTE,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    if not is_classifier and new_tokens > 0:
        prompt = ids[0, : max(1, length // 2)].tolist()
        case["greedy"] = {
            "prompt": prompt,
            "continuation": greedy(directory, kind, prompt, new_tokens),
        }
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "expected.safetensors")
    (out / "case.json").write_text(json.dumps(case))
    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, help="default: the model's directory")
    parser.add_argument("--length", type=int, default=17, help="tokens of the longest row")
    parser.add_argument("--new-tokens", type=int, default=12, help="of the greedy continuation")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens")
    args = parser.parse_args()
    out = args.out or args.model
    case = make_case(args.model, out, args.length, args.new_tokens, args.seed)
    print(f"{out}: loss {case['loss']:.6f}")


if __name__ == "__main__":
    main()
