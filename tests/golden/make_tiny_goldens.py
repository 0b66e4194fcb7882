#!/usr/bin/env python3
"""Writes tiny_model.json: what the small random models of tests/fixtures compute, according to a
float64 forward pass written here from Qwen2's equations.

make_tiny_goldens.py MAKE_TINY_MODEL: the argument is the built program of that name, which writes
the models. Needs numpy and gguf (made with gguf 0.19.0, numpy 2.4.6), which reads the files and
dequantises the weights: nothing of the engine takes part.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

IDS = [17, 203, 5, 88, 88, 141, 0, 249, 62, 30, 17, 203, 119, 7, 176, 54, 231, 98, 1, 160]
TAPS = ["rope_q", "rope_k", "attn_out", "swiglu"]
TAP_LENGTH = 64
TWINS = 8
SPECS = {
    "F32Tied": {"dtype": "F32", "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 64,
                "dim": 256, "ffn": 768, "tied": True, "seed": 1},
    "Q8_0Untied": {"dtype": "Q8_0", "layers": 2, "heads": 6, "kv_heads": 2, "head_dim": 128,
                   "dim": 256, "ffn": 512, "tied": False, "seed": 1},
}


def write_model(program, spec, path):
    command = [program, "--tied" if spec["tied"] else "--untied"]
    for key, value in spec.items():
        if key != "tied":
            command += ["--" + key.replace("_", "-"), str(value)]
    subprocess.run([*command, path], check=True)


class Qwen2:
    """Every tensor and number comes from the file. In float64, or with `random` as a twin: in
    float32, each sum of products added up one by one in a random order. How far twins are off says
    how far a correct float32 engine may be.
    """

    def __init__(self, path, random=None):
        self.random = random
        self.dtype = np.float64 if random is None else np.float32
        reader = GGUFReader(path)
        self.weights = {tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(self.dtype)
                        for tensor in reader.tensors}

        def number(key, missing=None):
            field = reader.get_field("qwen2." + key)
            return missing if field is None else field.contents()

        self.n_layers = number("block_count")
        self.n_heads = number("attention.head_count")
        self.n_kv_heads = number("attention.head_count_kv")
        self.head_dim = number("attention.key_length",
                               number("embedding_length") // self.n_heads)
        self.eps = float(number("attention.layer_norm_rms_epsilon"))
        self.base = float(number("rope.freq_base"))

    def product(self, x, rows):
        """The products of x (its last axis) and each of the rows."""
        if self.random is None:
            return x @ rows.T
        order = self.random.permutation(rows.shape[1])
        return np.cumsum(x[..., None, order] * rows[:, order], axis=-1)[..., -1]

    def norm(self, x, name):
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.eps) * self.weights[name + ".weight"]

    def linear(self, x, name):
        y = self.product(x, self.weights[name + ".weight"])
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias

    def rope(self, x):
        """x: (positions, heads, head_dim). Element i is paired with element i + head_dim / 2."""
        half = self.head_dim // 2
        angles = np.outer(np.arange(len(x)), self.base ** (-np.arange(half) / half))[:, None, :]
        cos, sin = np.cos(angles).astype(self.dtype), np.sin(angles).astype(self.dtype)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, q, k, v):
        out = np.empty_like(q)
        group = self.n_heads // self.n_kv_heads
        for head in range(self.n_heads):
            for i in range(len(q)):
                keys, values = k[: i + 1, head // group], v[: i + 1, head // group]
                scores = self.product(q[i, head], keys) / self.head_dim**0.5
                exponentials = np.exp(scores - scores.max())
                out[i, head] = self.product(exponentials / exponentials.sum(), values.T)
        return out

    def forward(self, ids, n_layers):
        """{tap: values at the last position}, the logits among them."""
        n = len(ids)
        taps = {}
        x = self.weights["token_embd.weight"][ids]
        for layer in range(n_layers):
            block = f"blk.{layer}."
            h = self.norm(x, block + "attn_norm")
            q = self.rope(self.linear(h, block + "attn_q").reshape(n, -1, self.head_dim))
            k = self.rope(self.linear(h, block + "attn_k").reshape(n, -1, self.head_dim))
            v = self.linear(h, block + "attn_v").reshape(n, -1, self.head_dim)
            attended = self.attention(q, k, v)
            x = x + self.linear(attended.reshape(n, -1), block + "attn_output")
            h = self.norm(x, block + "ffn_norm")
            gate = self.linear(h, block + "ffn_gate")
            silu = gate / (1 + np.exp(-gate))
            activated = silu * self.linear(h, block + "ffn_up")
            x = x + self.linear(activated, block + "ffn_down")
            if layer in (0, self.n_layers - 1):
                for name, values in zip(TAPS, [q, k, attended, activated]):
                    taps[f"L{layer:02}.{name}"] = values[-1].reshape(-1)[:TAP_LENGTH]
        head = "output" if "output.weight" in self.weights else "token_embd"
        taps["logits"] = self.linear(self.norm(x[-1], "output_norm"), head)
        return taps

    def arrays(self):
        arrays = self.forward(IDS, self.n_layers)
        arrays["logits_of_no_layer"] = self.forward(IDS, 0)["logits"]
        return arrays


def golden(program, spec):
    """The arrays, and how far the farthest of the twins is off in each of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tiny.gguf"
        write_model(program, spec, path)
        exact = Qwen2(path).arrays()
        twins = [Qwen2(path, np.random.default_rng(seed)).arrays() for seed in range(TWINS)]
    assert all(np.isfinite(values).all() for values in exact.values())
    assert all(values.dtype == np.float32 for twin in twins for values in twin.values())
    noise = {name: max(np.abs(twin[name] - values).max() for twin in twins)
             for name, values in exact.items()}
    return exact, noise


def main():
    program = sys.argv[1]
    models = []
    for name, spec in SPECS.items():
        exact, noise = golden(program, spec)
        arrays = ",\n".join(
            f'      "{key}": [' + ", ".join(f"{value:.9g}" for value in values) + "]"
            for key, values in exact.items())
        noise = {key: float(f"{value:.2g}") for key, value in noise.items()}
        models.append(f'  "{name}": {{\n    "spec": {json.dumps(spec)},\n'
                      f'    "noise": {json.dumps(noise)},\n'
                      f'    "arrays": {{\n{arrays}\n    }}\n  }}')
    text = f'{{\n  "ids": {json.dumps(IDS)},\n' + ",\n".join(models) + "\n}\n"
    json.loads(text)
    (pathlib.Path(__file__).parent / "tiny_model.json").write_text(text)


if __name__ == "__main__":
    main()
