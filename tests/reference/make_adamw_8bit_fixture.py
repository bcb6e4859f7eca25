"""Writes tests/fixtures/golden/adamw_8bit.json: AdamW with 8-bit moments, ten steps in float32.

Usage: python make_adamw_8bit_fixture.py OUTPUT_FILE   (needs numpy)

Blockwise dynamic quantisation of Dettmers et al. 2022 (arXiv 2110.02861), written out in the order of operations of
bitsandbytes: chunks of 256 elements, a signed map for first moments and an unsigned one for second moments, no
negative first moment rounded to 0; tensors of fewer than 4096 elements keep float32 moments. Weights and gradients are
those of `testValues` (tests/support/compare.ts) by seed, so that the file holds results only.
"""

import base64
import json
import sys

import numpy as np

f32 = np.float32
LEARNING_RATES = [0.01 / (1 + step) for step in range(10)]
SHAPES = {"matrix": (70, 65), "small": (5, 7), "long": (4100,), "vector": (9,)}
CONFIG = {"weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.99, "adam_epsilon": 1e-6}
CHUNK = 256
EVERY = 61


def test_values(length: int, seed: int) -> np.ndarray:
    state, values = (seed * 2654435761 + 12345) % 2**32, []
    for _ in range(length):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(state / 2**32 * 2 - 1)
    return np.array(values, f32)


def magnitudes(is_signed: bool) -> np.ndarray:
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** (decade + (0 if is_signed else 1)) + 1)
        values += list(10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2)
    return np.sort(np.array(values)).astype(f32)


def nearest(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    between = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(f32)
    return np.searchsorted(between, x, side="left")


SIGNED, UNSIGNED = magnitudes(True), magnitudes(False)
SIGNED_BY_CODE = np.concatenate([-SIGNED[1:-1][::-1], SIGNED])


class Moments8bit:
    def __init__(self, size: int):
        self.m_codes, self.v_codes = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        self.m_absmax, self.v_absmax = (np.zeros(-(-size // CHUNK), f32) for _ in range(2))

    def read(self):
        each = np.arange(self.m_codes.size) // CHUNK
        return SIGNED_BY_CODE[self.m_codes] * self.m_absmax[each], UNSIGNED[self.v_codes] * self.v_absmax[each]

    def write(self, m: np.ndarray, v: np.ndarray) -> None:
        for chunk in range(self.m_absmax.size):
            part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            self.m_absmax[chunk], self.v_absmax[chunk] = np.abs(m[part]).max(), v[part].max()
            scaled = m[part] / self.m_absmax[chunk]
            index = nearest(SIGNED, np.abs(scaled))
            negative = 127 - np.clip(index, 1, 127)
            self.m_codes[part] = np.where(scaled < 0, negative, 127 + index)
            self.v_codes[part] = nearest(UNSIGNED, v[part] / self.v_absmax[chunk])


class Moments32bit:
    def __init__(self, size: int):
        self.m, self.v = np.zeros(size, f32), np.zeros(size, f32)

    def read(self):
        return self.m, self.v

    def write(self, m: np.ndarray, v: np.ndarray) -> None:
        self.m, self.v = m, v


beta1, beta2 = CONFIG["adam_beta1"], CONFIG["adam_beta2"]
sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
weights = {name: test_values(size, 1 + i) for i, (name, size) in enumerate(sizes.items())}
moments = {name: (Moments8bit if size >= 4096 else Moments32bit)(size) for name, size in sizes.items()}
after = []
for step, rate in enumerate(LEARNING_RATES):
    correction1, correction2 = 1 - beta1 ** (step + 1), np.sqrt(1 - beta2 ** (step + 1))
    step_size, epsilon = f32(-rate * correction2 / correction1), f32(CONFIG["adam_epsilon"] * correction2)
    for i, (name, size) in enumerate(sizes.items()):
        g = test_values(size, 100 * (1 + step) + i)
        m, v = moments[name].read()
        m = m * f32(beta1) + f32(1 - beta1) * g
        v = v * f32(beta2) + (f32(1 - beta2) * g) * g
        moved = weights[name] + step_size * (m / (np.sqrt(v) + epsilon))
        decay = CONFIG["weight_decay"] if len(SHAPES[name]) > 1 else 0.0
        weights[name] = moved * f32(1 - rate * decay)
        moments[name].write(m, v)
    after.append({name: value[::EVERY].tolist() for name, value in weights.items()})

encoded = lambda codes: base64.b64encode(codes.tobytes()).decode()
fixture = {
    "numpy": np.__version__,
    "config": CONFIG,
    "shapes": SHAPES,
    "learning_rates": LEARNING_RATES,
    "every": EVERY,
    "after": after,
    "signed_map": SIGNED_BY_CODE.tolist(),
    "unsigned_map": UNSIGNED.tolist(),
    "matrix": {
        "first_moment_codes": encoded(moments["matrix"].m_codes),
        "first_moment_absmax": moments["matrix"].m_absmax.tolist(),
        "second_moment_codes": encoded(moments["matrix"].v_codes),
        "second_moment_absmax": moments["matrix"].v_absmax.tolist(),
    },
}
with open(sys.argv[1], "w") as file:
    json.dump(fixture, file)
