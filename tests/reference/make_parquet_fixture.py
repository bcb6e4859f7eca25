"""Writes tests/fixtures/parquet: one table in four codecs.

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
