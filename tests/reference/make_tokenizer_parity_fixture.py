"""Writes tests/fixtures/tokenizers: three small tokenizers and digests of what Python's library makes of 1 MB.

    python -m venv .venv && .venv/bin/pip install tokenizers==0.23.3
    .venv/bin/python tests/reference/make_tokenizer_parity_fixture.py

The text is made of the pieces of pieces.json by a generator that tests/data/tokenizer-parity.test.ts
repeats: English, Chinese, code, emoji, blanks of many kinds and single characters of many blocks.
"""

import hashlib
import json
import struct
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

folder = Path(__file__).resolve().parent.parent / "fixtures" / "tokenizers"
folder.mkdir(exist_ok=True)

english = (
    "the of and to in is that it was for on are as with his they at be this have from or had by not but "
    "what all were when we there can an your which their said if do will each about how up out them then "
    "she many some so these would other into has more her two like him see time could no make than first "
    "been its who now people my made over did down only way find use may water long little very after "
    "words called just where most know Congress United States President government public country nation "
    "don't isn't we'll I've they're naïve café résumé coöperate Zürich Ελληνικά Привет мир "
    "unbelievably internationalization 3.14159 1,000,000 2026-11-25 $9.99 50% e.g. A.B.C. http://a.b/c?d=e&f"
).split(" ")
chinese = (
    "你好 世界 我们 的 人工智能 是 一个 很 有趣 的 领域 。 模型 训练 需要 大量 数据 ， 而且 计算 资源 也 很 重要 ！ "
    "今天 天气 怎么样 ？ 北京 上海 中国 语言 学习 机器 「引号」 日本語 のテキスト 한국어 문장 、 ； 繁體 漢字 測試"
).split(" ")
code = [
    "def f(x, y=None):\n    return x + y if y else x\n",
    "for (let i = 0; i < n; i++) { sum += a[i] ?? 0; }\n",
    "\tif (ptr != NULL && *ptr == '\\0') goto end;\r\n",
    "const x: Map<string, number[]> = new Map([[\"k\", [1, 2]]]);\n",
    "SELECT * FROM t WHERE id >= 10 -- comment\n",
    "#include <stdio.h>\n\nint main(void)\n{\n        return 0;\n}\n",
    "{\"key\": [1, 2.5e-3, null, true], \"s\": \"a\\\"b\"}\n",
    "x->y::z<T>(); // TEMP_VAR snake_case camelCase PascalCase\n",
]
emoji = "🙂 😂 👍🏽 👩‍👩‍👧 🇩🇪 ❤️ 🏳️‍🌈 ✨ 🤖 1️⃣ ☕ 🎉🎉🎉".split(" ")
blanks = [" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "", "", "\u00a0", "\u3000", "\u200b", " \n ", "    "]
ranges = [[0x20, 0x7F], [0xA1, 0x17F], [0x300, 0x36F], [0x391, 0x3A1], [0x410, 0x44F], [0x5D0, 0x5EA],
          [0x627, 0x64A], [0x905, 0x939], [0xE01, 0xE30], [0x2010, 0x2027], [0x2200, 0x22FF],
          [0x3041, 0x3096], [0x4E00, 0x9FFF], [0xAC00, 0xD7A3], [0xFF01, 0xFF5E], [0x1F300, 0x1F64F],
          [0x20000, 0x200FF]]
pieces = {"pools": [english, english, english, chinese, code, emoji], "blanks": blanks, "ranges": ranges}
(folder / "pieces.json").write_text(json.dumps(pieces, ensure_ascii=True) + "\n")


class Random:
    """Numerical Recipes' linear congruential generator; its high bits are used."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return (self.state >> 8) % n


def document(random, num_pieces):
    parts = []
    for _ in range(num_pieces):
        kind = random.below(len(pieces["pools"]) + 1)
        if kind < len(pieces["pools"]):
            pool = pieces["pools"][kind]
            parts.append(pool[random.below(len(pool))])
        else:
            low, high = ranges[random.below(len(ranges))]
            parts.append(chr(low + random.below(high - low + 1)))
        parts.append(blanks[random.below(len(blanks))])
    return "".join(parts)


random = Random(20261125)
documents = []
size = 0
while size < 1_000_000:
    documents.append(document(random, 20 + random.below(600)))
    size += len(documents[-1].encode())

training = documents[::7]


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        training, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, show_progress=False,
                                            limit_alphabet=600)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level_bpe():
    tokenizer = Tokenizer(models.BPE())
    # The pattern of Llama 3.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.train_from_iterator(training, trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(training, trainers.UnigramTrainer(
        vocab_size=1500, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False,
    ))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def digest(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


result = {
    "tokenizers": tokenizers.__version__,
    "seed": 20261125,
    "num_documents": len(documents),
    "text_bytes": size,
    "text_sha256": hashlib.sha256("".join(documents).encode()).hexdigest(),
    "kinds": {},
}
for kind, make in [("wordpiece", wordpiece), ("byte_level_bpe", byte_level_bpe), ("unigram", unigram)]:
    (folder / kind).mkdir(exist_ok=True)
    make().save(str(folder / kind / "tokenizer.json"), pretty=False)
    tokenizer = Tokenizer.from_file(str(folder / kind / "tokenizer.json"))
    encodings = tokenizer.encode_batch(documents, add_special_tokens=False)
    ids = [i for encoding in encodings for i in encoding.ids]
    pair = tokenizer.encode(documents[0][:200], documents[1][:200])
    truncated = []
    for first, second, limit in [(200, 200, 32), (200, 10, 33), (9, 200, 24), (300, 300, 11), (5, 5, 64), (400, None, 16)]:
        tokenizer.enable_truncation(limit)
        encoded = tokenizer.encode(documents[0][:first], None if second is None else documents[1][:second])
        truncated.append({"first": first, "second": second, "limit": limit, "ids": encoded.ids,
                          "type_ids": encoded.type_ids})
    tokenizer.no_truncation()
    result["kinds"][kind] = {
        "num_tokens": len(ids),
        "sha256": digest(ids),
        "first_documents": [digest(encoding.ids) for encoding in encodings[:8]],
        "pair_ids": pair.ids,
        "pair_type_ids": pair.type_ids,
        "truncated": truncated,
        "decoded_sha256": hashlib.sha256(tokenizer.decode(encodings[3].ids).encode()).hexdigest(),
    }
(folder / "ids.json").write_text(json.dumps(result, indent=1) + "\n")
print(size, "bytes", {kind: value["num_tokens"] for kind, value in result["kinds"].items()})
