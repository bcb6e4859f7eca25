"""
Writes tests/fixtures/splits.json: random layouts of directories, and the files that
`datasets.load_dataset(DIRECTORY)` gives to each split of them.

    python3 tests/reference/make_splits_fixture.py

Needs the package datasets (5.2 wrote the committed file).
"""

import json
import os
import random
import tempfile
from pathlib import Path

from datasets.data_files import EmptyDatasetError, get_data_patterns, resolve_pattern

WORDS = ["train", "training", "test", "testing", "eval", "evaluation", "dev", "val", "valid"]
OTHERS = ["validation", "latest", "contest", "retrain", "data", "part", "devices", "values", "rows"]
ENDINGS = [".csv", ".jsonl", ".parquet", ".json"]


def name(rng: random.Random) -> str:
    parts = [rng.choice(WORDS + OTHERS + OTHERS) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
    text = parts[0]
    for part in parts[1:]:
        text += rng.choice(["-", "_", ".", " ", "", "0"]) + part
    return text + rng.choice(["", "", "1", "-2", "_x"])


def layout(rng: random.Random) -> list[str]:
    files = set()
    if rng.random() < 0.15:
        split = rng.choice(["train", "test", "train_sft", "my.split"])
        for i in range(2):
            files.add(f"data/{split}-{i:05d}-of-00002.parquet")
    for _ in range(rng.randint(1, 5)):
        folders = [name(rng) for _ in range(rng.choice([0, 0, 0, 1, 1, 2]))]
        files.add("/".join([*folders, name(rng) + rng.choice(ENDINGS)]))
    return sorted(files)


def splits(files: list[str]) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory() as base:
        for file in files:
            path = Path(base, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        base = os.path.realpath(base)
        found = {}
        for split, patterns in get_data_patterns(base).items():
            resolved = set()
            for pattern in patterns:
                try:
                    resolved.update(resolve_pattern(pattern, base))
                except FileNotFoundError:
                    pass
            found[str(split)] = sorted(os.path.relpath(path, base) for path in resolved)
        return found


def main() -> None:
    rng = random.Random(11)
    cases = []
    while len(cases) < 300:
        files = layout(rng)
        # A name that ends in the name of another file's directory is not to be had on a disk.
        if any(other.startswith(file + "/") for file in files for other in files):
            continue
        try:
            cases.append({"files": files, "splits": splits(files)})
        except EmptyDatasetError:
            continue
    target = Path(__file__).parents[1] / "fixtures" / "splits.json"
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    target.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
