"""The hub's cache as huggingface_hub and transformers fill it, and as they find what Lockstep has put there.

    python tests/reference/test_hub_cache.py find CACHE ID
    python tests/reference/test_hub_cache.py fetch CACHE ID ENDPOINT

`find` prints where huggingface_hub finds the snapshot without a network, and the sum of the weights that
transformers loads from it. `fetch` fills CACHE/snapshot with snapshot_download, and CACHE/loaded with
from_pretrained, from a server at ENDPOINT.
"""

import json
import os
import sys

action, cache, repo_id = sys.argv[1:4]
if action == "fetch":
    os.environ.pop("HF_HUB_OFFLINE", None)
    os.environ["HF_ENDPOINT"] = sys.argv[4]
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from huggingface_hub import snapshot_download  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402


def load(cache_dir):
    model = AutoModelForCausalLM.from_pretrained(repo_id, cache_dir=cache_dir)
    tokenizer = AutoTokenizer.from_pretrained(repo_id, cache_dir=cache_dir)
    total = sum(float(value.double().sum()) for value in model.parameters())
    return {"sum": total, "ids": tokenizer("hello there")["input_ids"]}


if action == "find":
    path = snapshot_download(repo_id, cache_dir=cache, local_files_only=True)
    print(json.dumps({"path": path, **load(cache)}))
else:
    path = snapshot_download(repo_id, cache_dir=os.path.join(cache, "snapshot"))
    print(json.dumps({"path": path, **load(os.path.join(cache, "loaded"))}))
