"""Loads what Lockstep wrote in transformers and peft, beside what those wrote for the same content.

    python tests/reference/test_written_files.py MANIFEST.json

`written-files.test.ts` writes the files and the manifest. Needs torch, transformers, peft (see
bench/peers/requirements.txt). Prints a line for each thing checked; the first difference ends it with 1.
"""

import dataclasses
import json
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    TrainerState,
)
from transformers.trainer_utils import get_last_checkpoint

warnings.filterwarnings("ignore")
torch.manual_seed(0)
TOKENS = torch.randint(3, 60, (3, 11))
HEADS = {"causal-lm": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(directory: str, head: str):
    """The model in the type that its files say; a key too many or too few is an error."""
    model, info = HEADS[head].from_pretrained(directory, dtype="auto", output_loading_info=True)
    wrong = {kind: sorted(map(str, keys)) for kind, keys in dict(info).items() if keys}
    assert not wrong, f"{directory}: {wrong}"
    return model.eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def check_model(case: dict) -> str:
    dtype = DTYPES[case["dtype"]]
    ours, theirs = load(case["ours"], case["head"]), load(case["theirs"], case["head"])
    assert ours.dtype == dtype, f"{case['ours']} loads as {ours.dtype}"
    a, b = logits(ours), logits(theirs.to(dtype))
    assert torch.equal(a, b), f"logits differ by {float((a - b).abs().max())}"
    return "logits equal to the bit"


def check_adapter(case: dict) -> str:
    """peft's logits of both; and of ours, the sum W + scale * B A, of DoRA in rows of its norms, made here, by hand."""
    base = load(case["base"], case["head"])
    plain = logits(base)
    ours = PeftModel.from_pretrained(base, case["ours"]).eval()
    adapted = logits(ours)
    if case["theirs"] is not None:
        theirs = PeftModel.from_pretrained(load(case["base"], case["head"]), case["theirs"]).eval()
        assert torch.equal(adapted, logits(theirs)), "logits differ from those of peft's own file"
        return "logits equal to the bit"
    assert float((adapted - plain).abs().max()) > 1e-3, "the adapter does nothing"
    # In float64, where the order of the sums does not show.
    ours, adapted = ours.double(), logits(ours.double())
    by_hand = load(case["base"], case["head"]).double()
    weights = dict(by_hand.named_parameters())
    stored = load_file(Path(case["ours"]) / "adapter_model.safetensors")
    transposed = json.loads((Path(case["ours"]) / "adapter_config.json").read_text())["fan_in_fan_out"]
    with torch.no_grad():
        for path, scale in case["scales"].items():
            a, b = (stored.pop(f"base_model.model.{path}.lora_{m}.weight").double() for m in "AB")
            delta = scale * (b @ a)
            weight = weights[f"{path}.weight"]
            weight += delta.T if transposed else delta
            magnitude = stored.pop(f"base_model.model.{path}.lora_magnitude_vector", None)
            if magnitude is not None:
                rows = weight.T if transposed else weight
                rows *= (magnitude.double() / rows.norm(dim=1))[:, None]
        for key, value in stored.items():
            weights[key.removeprefix("base_model.model.")].copy_(value)
    size = float(adapted.abs().max())
    error = float((adapted - logits(by_hand)).abs().max()) / size
    assert error < 1e-6, f"logits differ by {error} of their size from W + scale * B A"
    error = float((adapted - logits(ours.merge_and_unload())).abs().max()) / size
    assert error < 1e-6, f"the merged model's logits differ by {error} of their size"
    if "merged" in case:
        error = float((adapted - logits(load(case["merged"], case["head"]).double())).abs().max()) / size
        assert error < 1e-5, f"the logits of our merged model differ by {error} of their size"
    if case["head"] == "causal-lm":
        alone = AutoPeftModelForCausalLM.from_pretrained(case["ours"]).eval().double()
        error = float((adapted - logits(alone)).abs().max()) / size
        assert error < 1e-6, "differs when peft finds the base by its name"
    return f"{len(case['scales'])} modules, logits as computed by hand"


def check_run(case: dict) -> str:
    """A run's output directory, as scripts made for the Trainer use it."""
    output = Path(case["output"])
    newest = get_last_checkpoint(str(output))
    assert newest == str(output / case["newest"]), newest
    for directory in (output, *output.glob("checkpoint-*")):
        file = directory / "trainer_state.json"
        state = TrainerState.load_from_json(str(file))
        fields = {field.name for field in dataclasses.fields(state)}
        assert set(json.loads(file.read_text())) <= fields
        with tempfile.TemporaryDirectory() as scratch:
            again = Path(scratch) / "trainer_state.json"
            state.save_to_json(str(again))
            assert again.read_text() == file.read_text(), f"{file} is written otherwise"
        model = load(str(directory), "causal-lm")
        if "average" in case:
            average = load(str(directory / case["average"]), "causal-lm")
            moved = float((logits(model) - logits(average)).abs().max())
            assert 0 < moved < 1, f"the average's logits are {moved} from those of the weights"
    curve = [(e["step"], e["loss"]) for e in state.log_history if "loss" in e]
    assert curve and all(isinstance(loss, float) for _, loss in curve)
    results = json.loads((output / "all_results.json").read_text())
    assert (output / "all_results.json").read_text() == json.dumps(results, indent=4, sort_keys=True)
    assert results["train_loss"] > 0 and results["eval_loss"] > 0
    for line in (output / "trainer_log.jsonl").read_text().splitlines():
        assert json.dumps(json.loads(line)) == line, line
    return f"{len(curve)} points of the loss, {len(results)} results"


def check_classifier(case: dict) -> str:
    """The rows that a run evaluated, one after the other: no padding and no batch."""
    output = Path(case["output"])
    model = load(str(output), "classifier")
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    nll, rights, counts = 0.0, [], Counter()
    rows = [json.loads(line) for line in Path(case["rows"]).read_text().splitlines()]
    for row in rows:
        texts = [row[name] for name in ("text", "sentence1", "sentence2") if name in row]
        encoding = tokenizer.encode(*texts)
        inputs = {"input_ids": torch.tensor([encoding.ids])}
        if model.config.model_type == "bert":
            inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
        target = model.config.label2id[row["label"]]
        with torch.no_grad():
            outputs = model(**inputs, labels=torch.tensor([target]))
        predicted = int(outputs.logits.argmax())
        nll += float(outputs.loss)
        rights.append(predicted == target)
        counts.update([("target", target), ("predicted", predicted)])
        counts["right", target] += predicted == target
    f1 = [
        2 * counts["right", label] / (counts["target", label] + counts["predicted", label])
        for label in model.config.id2label
    ]
    results = json.loads((output / "eval_results.json").read_text())
    loss, accuracy = nll / len(rows), sum(rights) / len(rows)
    assert abs(results["eval_loss"] - loss) < 1e-5 * loss, (results["eval_loss"], loss)
    assert results["eval_accuracy"] == accuracy, (results["eval_accuracy"], accuracy)
    assert abs(results["eval_macro_f1"] - sum(f1) / len(f1)) < 1e-12
    return f"{len(rows)} rows, accuracy {accuracy:.3f}"


CHECKS = {
    "model": check_model,
    "adapter": check_adapter,
    "run": check_run,
    "classifier": check_classifier,
}


def main(manifest: str) -> None:
    for case in json.loads(Path(manifest).read_text()):
        try:
            print(f"{case['name']}: {CHECKS[case['kind']](case)}", flush=True)
        except Exception:
            print(f"{case['name']}: FAILED", flush=True)
            raise


if __name__ == "__main__":
    main(sys.argv[1])
