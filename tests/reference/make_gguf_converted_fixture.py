"""Writes tests/fixtures/gguf_converted.json: what llama.cpp's convert_hf_to_gguf.py makes of random decoders.

Usage: node dist/tests/reference/write-random-decoders.js DIR
       python make_gguf_converted_fixture.py LLAMA_CPP DIR OUTPUT.json

LLAMA_CPP is a checkout of llama.cpp (the sdist of llama-cpp-python 0.3.36 has one in vendor/llama.cpp). Needs torch,
transformers and what its requirements name. The tokenizer is a tiny one, of which the converter does not know by its
digest that it cuts texts as SmolLM2's does, and it is told.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

llama_cpp, source, output = sys.argv[1:]
sys.path[:0] = [llama_cpp, str(Path(llama_cpp) / "gguf-py")]

import convert_hf_to_gguf  # noqa: E402
import transformers  # noqa: E402
from conversion.base import TextModel  # noqa: E402
from conversion.phi import Phi3MiniModel  # noqa: E402
from gguf import GGUFReader  # noqa: E402

TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
# For some types of models transformers would take a tokenizer of its own, with more tokens.
transformers.AutoTokenizer = transformers.PreTrainedTokenizerFast
# Gemma's and Phi-3's own tokenizers are SentencePiece models.
TextModel._set_vocab_sentencepiece = TextModel._set_vocab_gpt2
Phi3MiniModel.set_vocab = TextModel._set_vocab_gpt2

# Names that follow from the directory, and what the converter says of itself.
OTHER = ("general.name", "general.basename", "general.size_label", "general.finetune", "GGUF.")
# Of SentencePiece.
OTHER += ("tokenizer.ggml.add_space_prefix",)
ALL_TYPES = ["float32", "float16", "bfloat16", "q8_0"]
TYPES = {"llama": ALL_TYPES, "gpt2": ["float32", "q8_0"], "gemma3": ["float32", "q8_0"]}
OUTTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "q8_0": "q8_0"}


def value_of(field):
    value = field.contents()
    if isinstance(value, list):
        # As JSON.stringify of JavaScript writes it.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
    return value


def described(path):
    reader = GGUFReader(path)
    metadata = {
        name: value_of(field) for name, field in reader.fields.items() if not name.startswith(OTHER)
    }
    tensors = {
        tensor.name: [
            tensor.tensor_type.name,
            [int(dim) for dim in reversed(tensor.shape)],
            # Computed there in float32.
            [float(value) for value in tensor.data]
            if tensor.name == "rope_freqs.weight"
            else hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        ]
        for tensor in reader.tensors
    }
    return {"metadata": dict(sorted(metadata.items())), "tensors": dict(sorted(tensors.items()))}


converted = {}
for model in sorted((Path(source) / "models").iterdir()):
    if model.name.endswith("-source"):
        continue
    for dtype in TYPES.get(model.name, ["float32"]):
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory) / "model.gguf"
            sys.argv[1:] = [str(model), "--outfile", str(target), "--outtype", OUTTYPES[dtype]]
            convert_hf_to_gguf.main()
            converted[f"{model.name}, {dtype}"] = described(target)
Path(output).write_text(json.dumps(converted, indent=1, ensure_ascii=False) + "\n")
