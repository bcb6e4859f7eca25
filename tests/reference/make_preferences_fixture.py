"""Writes tests/fixtures/preferences: losses, figures and gradients of pairs of answers by TRL's own trainers.

Usage: python make_preferences_fixture.py MODELS_DIR OUTPUT_DIR   (needs torch, transformers, trl 1.16, datasets)

MODELS_DIR holds the models of make_random_model.py (tests/fixtures/models). The policy's weights are the model's
times 1 + 0.1 sin(i) of their places i; the reference's are the model's.

cases.json          of each NAME its model, objective, settings, the rows as TRL tokenises them, the mean loss and what
                    TRL logs
NAME.safetensors    the gradient of the mean loss for every parameter, float32
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

ROWS = [
    {"prompt": "5 9 3 ", "chosen": "7 11 12 20", "rejected": "8 30"},
    {"prompt": "14 ", "chosen": "21 2", "rejected": "22 23 24 25 26"},
    {"prompt": "3 3 4 9 6 ", "chosen": "31", "rejected": "17"},
    {"prompt": "10 28 ", "chosen": "29 30 6", "rejected": "6 30 29"},
]
MARGINS = [0.5, 0.0, 1.25, -0.25]
CAUSAL, SCORED = "llama-pad-in-text", "mistral-seqcls-regression"
CASES = {
    "sigmoid": ("dpo", {"beta": 0.1, "loss_type": "sigmoid"}),
    "ipo": ("dpo", {"beta": 0.3, "loss_type": "ipo"}),
    "hinge": ("dpo", {"beta": 0.2, "loss_type": "hinge"}),
    "robust": ("dpo", {"beta": 0.5, "loss_type": "robust", "label_smoothing": 0.2}),
    # TRL's sigmoid has no smoothing: the loss of swapped pairs, by its weight.
    "smoothed": ("dpo", {"beta": 0.5, "loss_type": "sigmoid", "label_smoothing": 0.2}),
    "orpo": ("orpo", {"beta": 0.25}),
    "reward": ("reward", {"center_rewards_coefficient": 0.01}),
}


def tokenizer(vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    """Words are the ids of their tokens; 0 is padding, 1 ends an answer."""
    words = {str(i): i for i in range(vocabulary)}
    words["<pad>"] = words.pop("0")
    words["</s>"] = words.pop("1")
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>"
    )


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    for weight in model.parameters():
        places = torch.arange(weight.numel(), dtype=torch.float64).reshape(weight.shape)
        weight.data = (weight.data.double() * (1 + 0.1 * torch.sin(places))).float()
    return model


def load(kind: type, directory: Path) -> torch.nn.Module:
    return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")


def arguments(kind: type, folder: str, **settings):
    return kind(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        disable_dropout=True,
        remove_unused_columns=False,
        max_length=16,
        per_device_train_batch_size=len(ROWS),
        **settings,
    )


def separate_eos(rows: list[dict]) -> list[dict]:
    """TRL puts the end token right behind an answer: a blank parts it from the last word."""
    return [{**row, "chosen": f"{row['chosen']} </s>", "rejected": f"{row['rejected']} </s>"} for row in rows]


def run(name: str, models_dir: Path, out: Path) -> dict:
    objective, settings = CASES[name]
    directory = models_dir / (SCORED if objective == "reward" else CAUSAL)
    config = transformers.AutoConfig.from_pretrained(directory)
    words = tokenizer(config.vocab_size)
    rows = Dataset.from_list(separate_eos(ROWS))
    with tempfile.TemporaryDirectory() as folder:
        if objective == "dpo":
            asked = {**settings}
            swapped = asked.pop("label_smoothing") if name == "smoothed" else 0.0
            trainer = DPOTrainer(
                model=perturbed(load(transformers.AutoModelForCausalLM, directory)),
                ref_model=load(transformers.AutoModelForCausalLM, directory),
                args=arguments(DPOConfig, folder, **asked),
                train_dataset=rows,
                processing_class=words,
            )
            batch = trainer.data_collator(list(trainer.train_dataset))
            trainer.model.train()
            loss = trainer.compute_loss(trainer.model, batch)
            figures = {key: values[-1] for key, values in trainer._metrics["train"].items()}
            if swapped:
                turned = {key: torch.cat(value.chunk(2)[::-1]) for key, value in batch.items()}
                loss = (1 - swapped) * loss + swapped * trainer.compute_loss(trainer.model, turned)
            ids, mask = batch["input_ids"], batch["attention_mask"]
            learnt = batch["completion_mask"]
        elif objective == "orpo":
            trainer = ORPOTrainer(
                model=perturbed(load(transformers.AutoModelForCausalLM, directory)),
                args=arguments(ORPOConfig, folder, **settings),
                train_dataset=rows,
                processing_class=words,
            )
            loss, figures = 0.0, {}
            # A pair at a time: the mean over its tokens is a pair's own.
            for row in trainer.train_dataset:
                part, told = trainer.get_batch_loss_metrics(trainer.model, trainer.data_collator([row]))
                loss = loss + part / len(ROWS)
                for key, value in told.items():
                    figures[key] = figures.get(key, 0.0) + value / len(ROWS)
            batch = trainer.data_collator(list(trainer.train_dataset))
            joined = trainer.concatenated_inputs(batch)
            ids, mask = joined["concatenated_input_ids"], joined["concatenated_attention_mask"]
            learnt = (joined["concatenated_labels"] >= 0).long()
        else:
            trainer = RewardTrainer(
                model=perturbed(load(transformers.AutoModelForSequenceClassification, directory)),
                args=arguments(RewardConfig, folder, **settings),
                train_dataset=rows.add_column("margin", MARGINS),
                processing_class=words,
            )
            batch = trainer.data_collator(list(trainer.train_dataset))
            trainer.model.train()
            loss = trainer.compute_loss(trainer.model, dict(batch))
            figures = {key: values[-1] for key, values in trainer._metrics["train"].items()}
            ids, mask = batch["input_ids"], batch["attention_mask"]
            learnt = torch.zeros_like(mask)
        trainer.model.zero_grad()
        loss.backward()
        file = out / f"{name}.safetensors"
        save_file({key: weight.grad for key, weight in trainer.model.named_parameters()}, file)
        file.chmod(0o644)
    sides = [
        [row[: int(length)].tolist() for row, length in zip(values, mask.sum(1), strict=True)]
        for values in (ids, learnt)
    ]
    return {
        **{"model": directory.name, "objective": objective, "settings": settings},
        **({"margins": MARGINS} if objective == "reward" else {}),
        **{"tokens": sides[0], "learnt": sides[1], "loss": loss.item()},
        "figures": {key: float(value) for key, value in figures.items()},
    }


def main() -> None:
    models_dir, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    cases = {name: run(name, models_dir, out) for name in CASES}
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    (out / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
