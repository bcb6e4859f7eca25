"""Writes tests/fixtures/objectives: losses with class weights, smoothed labels, z-loss and weights
of rows and tokens, and scores of numbers.

Usage: python make_objectives_fixture.py MODELS_DIR OUTPUT_DIR   (needs torch, transformers, safetensors)

MODELS_DIR holds the models of make_random_model.py with their cases (tests/fixtures/models).

NAME.safetensors    `loss`, and `grad.PARAMETER` for every parameter, of the case of a model by the loss of
                    cases.json: torch's cross_entropy and binary_cross_entropy_with_logits, transformers'
                    LabelSmoother; float32
cases.json          of each NAME its model, objective and settings, and the weights of its labels
number_scores.json  targets, predictions and torch's correlations
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.trainer_pt_utils import LabelSmoother

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from make_case import class_name, load  # noqa: E402

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
CASES = {
    "weighted": {"model": "bert-seqcls", "kind": SINGLE, "classWeights": [0.25, 3.0, 1.5, 2.0]},
    "smoothed": {"model": "distilbert-seqcls", "kind": SINGLE, "labelSmoothing": 0.1},
    "weighted-smoothed": {
        "model": "qwen2-seqcls",
        "kind": SINGLE,
        "classWeights": [2.0, 0.5, 0.125, 1.5, 3.0],
        "labelSmoothing": 0.3,
    },
    "weighted-multi": {"model": "roberta-multi", "kind": MULTI, "classWeights": [0.5, 4.0, 1.25]},
    "smoothed-causal": {"model": "llama-pad-in-text", "kind": "causal_lm", "labelSmoothing": 0.1},
    # Its logits are capped.
    "smoothed-gemma2": {"model": "gemma2", "kind": "causal_lm", "labelSmoothing": 0.25},
    "z-causal": {"model": "llama-pad-in-text", "kind": "causal_lm", "zLossWeight": 0.01},
    "z-gemma2": {
        "model": "gemma2",
        "kind": "causal_lm",
        "labelSmoothing": 0.25,
        "zLossWeight": 0.1,
    },
    "z-weighted": {
        "model": "bert-seqcls",
        "kind": SINGLE,
        "classWeights": [0.25, 3.0, 1.5, 2.0],
        "labelSmoothing": 0.1,
        "zLossWeight": 0.05,
    },
    # A weight a row of labels: of its tokens, or of the row.
    "tokens-weighted": {"model": "llama-pad-in-text", "kind": "causal_lm", "weightsPerRow": "token"},
    "tokens-weighted-gemma2": {
        "model": "gemma2",
        "kind": "causal_lm",
        "labelSmoothing": 0.1,
        "zLossWeight": 0.05,
        "weightsPerRow": "token",
    },
    "rows-weighted": {
        "model": "bert-seqcls",
        "kind": SINGLE,
        "classWeights": [0.25, 3.0, 1.5, 2.0],
        "labelSmoothing": 0.1,
        "zLossWeight": 0.05,
        "weightsPerRow": 1,
    },
    "rows-weighted-multi": {
        "model": "roberta-multi",
        "kind": MULTI,
        "classWeights": [0.5, 4.0, 1.25],
        "weightsPerRow": 1,
    },
    "rows-weighted-regression": {
        "model": "bert-regression",
        "kind": "regression",
        "weightsPerRow": 1,
    },
}


def loss_of(case: dict, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    smoothing = case.get("labelSmoothing", 0.0)
    weights = torch.tensor(case["classWeights"]) if "classWeights" in case else None
    if "zLossWeight" in case:
        plain = {name: value for name, value in case.items() if name != "zLossWeight"}
        return loss_of(plain, logits, labels) + case["zLossWeight"] * z_loss(case, logits, labels)
    if case["kind"] == MULTI:
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    is_causal = case["kind"] == "causal_lm"
    if weights is None:
        smoother = LabelSmoother(epsilon=smoothing)
        return smoother({"logits": logits}, labels, shift_labels=is_causal)
    return F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)


def z_loss(case: dict, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of log^2 Z over the targets, each as much as its class counts (PaLM, section 5)."""
    if case["kind"] == "causal_lm":
        logits, labels = logits[:, :-1], labels[:, 1:]
    counted = labels >= 0
    log_z = torch.logsumexp(logits, -1)[counted]
    if "classWeights" not in case:
        return log_z.square().mean()
    weights = torch.tensor(case["classWeights"])[labels[counted]]
    return (weights * log_z.square()).sum() / weights.sum()


def weighted_loss(case: dict, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """sum_i w_i l_i / sum_i w_i, each l_i by torch's own function for one target."""
    weights = torch.tensor(case["weights"])
    smoothing = case.get("labelSmoothing", 0.0)
    if case["kind"] == "causal_lm":
        logits, labels, weights = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), weights[:, 1:].flatten()
    if case["kind"] == MULTI:
        positive = torch.tensor(case["classWeights"])
        each = F.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=positive, reduction="none"
        )
        return (weights[:, None] * each).sum() / (weights.sum() * labels.shape[1])
    if case["kind"] == "regression":
        each = F.mse_loss(logits, labels.reshape(logits.shape), reduction="none")
        return (weights[:, None] * each).sum() / (weights.sum() * logits.shape[1])
    classes = torch.tensor(case["classWeights"]) if "classWeights" in case else None
    each = F.cross_entropy(
        logits, labels, weight=classes, label_smoothing=smoothing, reduction="none"
    )
    counted = labels >= 0
    counts = weights * counted
    if classes is not None:
        counts = counts * classes[labels]
    z = torch.logsumexp(logits, -1).square() * case.get("zLossWeight", 0.0)
    return ((weights * each)[counted].sum() + (counts * z)[counted].sum()) / counts[counted].sum()


def draw_weights(case: dict, labels: torch.Tensor) -> list:
    """Multiples of 1/64 between 0 and 4, one of each row 0 where tokens have weights."""
    shape = labels.shape if case["weightsPerRow"] == "token" else labels.shape[:1]
    torch.manual_seed(len(case["model"]))
    weights = torch.randint(1, 257, shape) / 64
    if case["weightsPerRow"] == "token":
        weights[:, 3] = 0
    return weights.tolist()


def make_losses(models: Path, out: Path, name: str, case: dict) -> None:
    directory = models / case["model"]
    recorded = json.loads((directory / "case.json").read_text())
    model = load(directory, class_name(transformers.AutoConfig.from_pretrained(directory)))
    result = model(
        input_ids=torch.tensor(recorded["input_ids"]),
        attention_mask=torch.tensor(recorded["attention_mask"]),
    )
    labels = torch.tensor(recorded["labels"])
    if "weightsPerRow" in case:
        case["weights"] = draw_weights(case, labels)
    loss = (weighted_loss if "weights" in case else loss_of)(case, result.logits, labels)
    loss.backward()
    tensors = {"loss": loss.detach().reshape(1)}
    for parameter_name, parameter in model.named_parameters():
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        tensors[f"grad.{parameter_name}"] = gradient.contiguous()
    save_file(tensors, out / f"{name}.safetensors")


def ranks(values: torch.Tensor) -> torch.Tensor:
    """From 1; equal values have the mean of their places."""
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return below + (equal.double() + 1) / 2


def number_scores(targets: torch.Tensor, predictions: torch.Tensor) -> dict:
    errors = predictions - targets
    pairs = list(zip(targets.T, predictions.T))
    pearson = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    spearman = [torch.corrcoef(torch.stack([ranks(x), ranks(y)]))[0, 1] for x, y in pairs]
    return {
        "targets": targets.tolist(),
        "predictions": predictions.tolist(),
        "scores": {
            "rmse": errors.square().mean().sqrt().item(),
            "mae": errors.abs().mean().item(),
            "pearson": torch.stack(pearson).mean().item(),
            "spearmanr": torch.stack(spearman).mean().item(),
        },
    }


def main() -> None:
    models, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        make_losses(models, out, name, case)
    (out / "cases.json").write_text(json.dumps({"torch": torch.__version__, "cases": CASES}))
    torch.manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)
    target = draw(40, 1)
    scores = [
        number_scores(target, target + draw(40, 1)),
        # Halves tie often.
        number_scores((2 * draw(50, 3)).round() / 2, (2 * draw(50, 3)).round() / 2),
        number_scores(1000 + target, 5 - 3 * target + 0.1 * draw(40, 1)),
    ]
    (out / "number_scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
