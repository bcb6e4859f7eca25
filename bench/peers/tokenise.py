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
num_bytes = documents["rounds"] * sum(len(text.encode()) for text in texts)
seconds, num_tokens, id_sum = 0.0, 0, 0
for _ in range(documents["rounds"]):
    start = time.perf_counter()
    encoded = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    seconds += time.perf_counter() - start
    num_tokens += sum(map(len, encoded))
    id_sum += sum(map(sum, encoded))
check = {"numTokens": num_tokens, "idSum": id_sum}
print(json.dumps({"values": {"tokenise": num_bytes / 1e6 / seconds}, "check": check}))
