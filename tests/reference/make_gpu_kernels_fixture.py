"""Writes tests/fixtures/gpu_kernels.json: the kernels that TensorFlow registers for NVIDIA GPUs.

The CUDA build registers them when its library is loaded, whether or not there is a GPU:

    pip install tensorflow==2.21.0
    python tests/reference/make_gpu_kernels_fixture.py

Of every op: one entry a kernel, the types that it takes by attribute ("T=bfloat16"), several of an
attribute with a bar between them; attributes without an entry take any type. Types that Lockstep's
graphs do not have are left out.
"""

import json
import os
import pathlib

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
from tensorflow.python.framework import dtypes, kernels

assert tf.test.is_built_with_cuda(), "this TensorFlow was built without CUDA"

OUR_TYPES = {
    "float32", "bfloat16", "float16", "float64", "int32", "int64", "uint8", "bool", "resource",
}

table = {}
for kernel in kernels.get_all_registered_kernels().kernel:
    if kernel.device_type not in ("GPU", "DEFAULT") or kernel.label:
        continue
    parts = []
    for constraint in sorted(kernel.constraint, key=lambda c: c.name):
        types = {dtypes.as_dtype(t).name for t in constraint.allowed_values.list.type} & OUR_TYPES
        if not types:
            break
        parts.append(f"{constraint.name}={'|'.join(sorted(types))}")
    else:
        table.setdefault(kernel.op, set()).add(" ".join(parts))

lines = [f"    {json.dumps(op)}: {json.dumps(sorted(table[op]))}" for op in sorted(table)]
target = pathlib.Path(__file__).parent.parent / "fixtures" / "gpu_kernels.json"
target.write_text(
    f'{{\n  "tensorflow": "{tf.__version__}",\n  "kernels": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
)
