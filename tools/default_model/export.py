"""Writes the GGUF file: metadata, tokenizer, chat template, Q8_0 matrices, F32 vectors."""

import json
import struct

import numpy as np

from lexicon import HERE
from quantise import q8_0_bytes
from tokens import SPECIALS

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # metadata value types
TYPE_F32, TYPE_Q8_0 = 0, 8
NORMAL, CONTROL = 1, 3  # token types
TEMP, TOP_K, TOP_P = 0.6, 20, 0.8  # the sampling that the file suggests
PARTS = {"attn_norm.weight": "attn_norm.weight", "q.weight": "attn_q.weight", "q.bias": "attn_q.bias",
         "k.weight": "attn_k.weight", "k.bias": "attn_k.bias", "v.weight": "attn_v.weight", "v.bias": "attn_v.bias",
         "o.weight": "attn_output.weight", "ffn_norm.weight": "ffn_norm.weight", "gate.weight": "ffn_gate.weight",
         "up.weight": "ffn_up.weight", "down.weight": "ffn_down.weight"}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    formats = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}
    return string(v) if kind == STRING else struct.pack(formats[kind], v)


def pair(key, kind, v):
    if isinstance(v, list):
        body = struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    else:
        body = struct.pack("<I", kind) + value(kind, v)
    return string(key) + body


def tensors(state, config):
    """[(name, array)] in the order of the forward pass."""
    named = [("token_embd.weight", state["embed.weight"])]
    for i in range(config.n_layers):
        named += [(f"blk.{i}.{theirs}", state[f"layers.{i}.{ours}"]) for ours, theirs in PARTS.items()]
    named.append(("output_norm.weight", state["output_norm.weight"]))
    return [(name, tensor.numpy().astype(np.float32)) for name, tensor in named]


def metadata(config, tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    special = {t: tokenizer.token_to_id(t) for t in SPECIALS}
    arch = "qwen2"
    return [
        ("general.architecture", STRING, arch),
        ("general.name", STRING, "qwen default model"),
        ("general.description", STRING, "a small model of the qwen project: haiku, and questions about qwen"),
        ("general.license", STRING, "apache-2.0"),
        ("general.file_type", U32, 7),  # mostly Q8_0
        ("general.quantization_version", U32, 2),
        ("general.sampling.temp", F32, TEMP),
        ("general.sampling.top_k", I32, TOP_K),
        ("general.sampling.top_p", F32, TOP_P),
        ("general.sampling.penalty_repeat", F32, 1.0),
        (f"{arch}.block_count", U32, config.n_layers),
        (f"{arch}.context_length", U32, config.context),
        (f"{arch}.embedding_length", U32, config.dim),
        (f"{arch}.feed_forward_length", U32, config.ffn_dim),
        (f"{arch}.attention.head_count", U32, config.n_heads),
        (f"{arch}.attention.head_count_kv", U32, config.n_kv_heads),
        (f"{arch}.attention.key_length", U32, config.head_dim),
        (f"{arch}.attention.value_length", U32, config.head_dim),
        (f"{arch}.attention.layer_norm_rms_epsilon", F32, config.eps),
        (f"{arch}.rope.freq_base", F32, config.rope_base),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "qwen2"),
        ("tokenizer.ggml.tokens", STRING, tokens),
        ("tokenizer.ggml.token_type", I32, [CONTROL if t in special else NORMAL for t in tokens]),
        ("tokenizer.ggml.merges", STRING, merges),
        ("tokenizer.ggml.bos_token_id", U32, special["<|endoftext|>"]),
        ("tokenizer.ggml.eos_token_id", U32, special["<|im_end|>"]),
        ("tokenizer.ggml.padding_token_id", U32, special["<|endoftext|>"]),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, (HERE / "chat_template.jinja").read_text(encoding="utf-8")),
    ]


def padded(data):
    return data + b"\0" * (-len(data) % ALIGNMENT)


def write_gguf(path, state, config, tokenizer):
    """`state`: FP32 tensors by their names in model.py."""
    pairs = metadata(config, tokenizer)
    infos, data = b"", b""
    named = tensors(state, config)
    for name, array in named:
        is_matrix = array.ndim > 1
        infos += string(name) + struct.pack(f"<I{array.ndim}QIQ", array.ndim, *reversed(array.shape),
                                            TYPE_Q8_0 if is_matrix else TYPE_F32, len(data))
        data += padded(q8_0_bytes(array) if is_matrix else array.tobytes())
    header = b"GGUF" + struct.pack("<IQQ", 3, len(named), len(pairs))
    path.write_bytes(padded(header + b"".join(pair(*p) for p in pairs) + infos) + data)
