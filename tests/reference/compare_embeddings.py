"""Sentence embeddings of a directory in transformers, against those of Lockstep.

    node dist/tests/reference/embed.js MODEL_DIR vectors.json
    python tests/reference/compare_embeddings.py MODEL_DIR vectors.json

Needs torch and transformers. The mean of the last hidden states over real tokens, scaled to length 1,
as sentence-transformers does for all-MiniLM-L6-v2. Exits 1 when token ids differ, or a vector by more
than 1e-4 of its norm.
"""

import json
import sys

import torch
from transformers import AutoModel, AutoTokenizer


def main(directory: str, vectors_file: str) -> int:
    rows = json.load(open(vectors_file, encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    worst = 0.0
    for row in rows:
        batch = tokenizer(row["sentence"], return_tensors="pt", truncation=True)
        if batch["input_ids"][0].tolist() != row["tokens"]:
            print(f"{row['sentence']}: token ids {row['tokens']}, not {batch['input_ids'][0].tolist()}")
            return 1
        with torch.no_grad():
            mean = model(**batch).last_hidden_state[0].mean(0)
        expected = torch.nn.functional.normalize(mean, dim=0)
        worst = max(worst, float((torch.tensor(row["vector"]) - expected).norm()))
    print(f"{len(rows)} sentences, largest difference {worst:.1e}")
    return 0 if worst <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
