"""Writes tests/fixtures/parquet: one table in four codecs, and one in both kinds of pages with every encoding.

    python -m venv .venv && .venv/bin/pip install pyarrow==26.0.1
    .venv/bin/python tests/reference/make_parquet_fixture.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(__file__).resolve().parent.parent / "fixtures" / "parquet"
folder.mkdir(exist_ok=True)
messages = [
    [{"role": "user", "content": f"question {i} é 你好 🙂"}, {"role": "assistant", "content": f"answer {i}"}]
    for i in range(7)
]
counts = pa.array([[{"n": i}, {"n": 2}] for i in range(7)], pa.list_(pa.struct([("n", pa.int64())])))
table = pa.table({"id": pa.array(range(7), pa.int64()), "messages": messages, "counts": counts})
for codec in ["snappy", "gzip", "zstd", "none"]:
    pq.write_table(table, folder / f"{codec}.parquet", compression=codec, row_group_size=3)

num_rows = 12
encoded = pa.table(
    {
        "text": pa.array([None if i % 5 == 4 else f"question {i}" for i in range(num_rows)]),
        "shared": pa.array([f"prefix/{i // 4}/{i}" for i in range(num_rows)]),
        "id": pa.array([i * i - 7 for i in range(num_rows)], pa.int32()),
        "big": pa.array([None if i == 3 else i << 40 for i in range(num_rows)], pa.int64()),
        "score": pa.array([i / 8 for i in range(num_rows)], pa.float32()),
        "flag": pa.array([i % 3 == 0 for i in range(num_rows)]),
        "label": pa.array(["yes", "no", "yes"] * 4),
        "turns": pa.array([[f"turn {j}" for j in range(i % 3)] for i in range(num_rows)]),
    }
)
encodings = {
    "text": "DELTA_LENGTH_BYTE_ARRAY",
    "shared": "DELTA_BYTE_ARRAY",
    "id": "DELTA_BINARY_PACKED",
    "big": "DELTA_BINARY_PACKED",
    "score": "BYTE_STREAM_SPLIT",
    "flag": "RLE",
}
for version in ["1.0", "2.0"]:
    pq.write_table(
        encoded,
        folder / f"encodings-{version[0]}.parquet",
        use_dictionary=["label"],
        column_encoding=encodings,
        data_page_version=version,
        compression="none",
        store_schema=False,
        write_statistics=False,
    )
