"""Megabytes of text that `tokenizers` takes a second on one thread (TOKENIZERS_PARALLELISM=false).

    python bench/peers/tokenise.py DOCUMENTS.json
"""

import json
import sys
import time

from tokenizers import Tokenizer

with open(sys.argv[1]) as file:
    documents = json.load(file)
tokenizer = Tokenizer.from_file(documents["tokenizer"])
texts = documents["texts"]
tokenizer.encode_batch(texts[:10], add_special_tokens=False)
num_bytes = sum(len(text.encode()) for text in texts)
start = time.perf_counter()
encoded = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
seconds = time.perf_counter() - start
check = {"numTokens": sum(map(len, encoded)), "idSum": sum(map(sum, encoded))}
print(json.dumps({"values": {"tokenise": num_bytes / 1e6 / seconds}, "check": check}))
