"""Reads the default model back from its GGUF file, by gguf-py."""

import gguf
import numpy as np
import torch

from export import PARTS
from model import Config, Qwen2
from tokens import SPECIALS, assemble


def read_model(path):
    """(model with the weights in FP32, tokenizer, chat template)"""
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    tokens = values["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    vocab = {token: i for i, token in enumerate(tokens) if token not in SPECIALS}
    tokenizer = assemble(vocab, merges)
    assert all(tokenizer.token_to_id(token) == i for i, token in enumerate(tokens))
    config = Config(len(tokens), values["qwen2.embedding_length"], values["qwen2.block_count"],
                    values["qwen2.attention.head_count"], values["qwen2.attention.head_count_kv"],
                    values["qwen2.attention.key_length"], values["qwen2.feed_forward_length"],
                    values["qwen2.rope.freq_base"], values["qwen2.attention.layer_norm_rms_epsilon"],
                    values["qwen2.context_length"])
    tensors = {t.name: torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type), np.float32))
               for t in reader.tensors}
    state = {"embed.weight": tensors["token_embd.weight"], "output_norm.weight": tensors["output_norm.weight"]}
    for i in range(config.n_layers):
        state |= {f"layers.{i}.{ours}": tensors[f"blk.{i}.{theirs}"] for ours, theirs in PARTS.items()}
    model = Qwen2(config)
    model.load_state_dict({k: v.reshape(model.state_dict()[k].shape) for k, v in state.items()})
    return model.eval(), tokenizer, values["tokenizer.chat_template"]
