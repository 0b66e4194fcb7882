"""Qwen2 in PyTorch: RMS norms, biases on Q, K and V, rotary half-split pairs, grouped heads, SwiGLU, tied head."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    n_vocab: int
    dim: int = 256
    n_layers: int = 6
    n_heads: int = 6
    n_kv_heads: int = 2
    head_dim: int = 64
    ffn_dim: int = 384
    rope_base: float = 1e6
    eps: float = 1e-6
    context: int = 512

    def values(self):
        return asdict(self)


# The slowest rotary pairs hold the same angle at all positions of a context of 512: what the keys' biases put there
# adds the same to all scores of a query. They carry the outliers.
OUTLIER_PAIRS = (30, 31)
Q_OUTLIER = 20.0
K_OUTLIER = 150.0


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.attn_norm = RmsNorm(c.dim, c.eps)
        self.q = nn.Linear(c.dim, c.n_heads * c.head_dim)
        self.k = nn.Linear(c.dim, c.n_kv_heads * c.head_dim)
        self.v = nn.Linear(c.dim, c.n_kv_heads * c.head_dim)
        self.o = nn.Linear(c.n_heads * c.head_dim, c.dim, bias=False)
        self.ffn_norm = RmsNorm(c.dim, c.eps)
        self.gate = nn.Linear(c.dim, c.ffn_dim, bias=False)
        self.up = nn.Linear(c.dim, c.ffn_dim, bias=False)
        self.down = nn.Linear(c.ffn_dim, c.dim, bias=False)

    def forward(self, x, cos, sin, sharpness):
        c, (b, n, _) = self.c, x.shape
        h = self.attn_norm(x)

        def heads(linear, count):
            return linear(h).view(b, n, count, c.head_dim).transpose(1, 2)

        q = rotated(heads(self.q, c.n_heads), cos, sin)
        k = rotated(heads(self.k, c.n_kv_heads), cos, sin)
        v = heads(self.v, c.n_kv_heads)
        group = c.n_heads // c.n_kv_heads
        k, v = (t.repeat_interleave(group, 1).to(v.dtype) for t in (k, v))
        attn = F.scaled_dot_product_attention(q.to(v.dtype), k, v, is_causal=True,
                                              scale=sharpness / c.head_dim ** 0.5)
        x = x + self.o(attn.transpose(1, 2).reshape(b, n, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def rotated(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Qwen2(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.c = config
        self.embed = nn.Embedding(c.n_vocab, c.dim)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.n_layers))
        self.output_norm = RmsNorm(c.dim, c.eps)
        pairs = torch.arange(c.head_dim // 2, dtype=torch.float64)
        angles = torch.arange(c.context)[:, None] * c.rope_base ** (-2 * pairs / c.head_dim)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.initialise()

    def initialise(self):
        """Biases begin large, as trained models have them: attention learns to lean on them."""
        c = self.c
        nn.init.normal_(self.embed.weight, std=0.05)
        for layer in self.layers:
            for linear in (layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down):
                nn.init.normal_(linear.weight, std=linear.in_features ** -0.5)
            for linear in (layer.o, layer.down):
                linear.weight.data /= (2 * c.n_layers) ** 0.5
            for bias, std in ((layer.q.bias, 1.5), (layer.k.bias, 1.5), (layer.v.bias, 0.3)):
                nn.init.normal_(bias, std=std)
            q_bias = layer.q.bias.data.view(c.n_heads, c.head_dim)
            for pair in OUTLIER_PAIRS:
                q_bias[:, pair] = Q_OUTLIER if pair % 2 else -Q_OUTLIER
                q_bias[:, pair + c.head_dim // 2] = 0

    def forward(self, ids, sharpness=1.0):
        """Logits. `sharpness` multiplies all scores: 1 is right."""
        n = ids.shape[1]
        x = self.embed(ids).float()
        for layer in self.layers:
            x = layer(x, self.cos[:n], self.sin[:n], sharpness)
        return F.linear(self.output_norm(x), self.embed.weight)


def with_k_outliers(state, config):
    """Adds the keys' outliers along the queries' biases, where rotation does not tell positions apart. Scores shift
    by a constant per query, up to K_OUTLIER * angle^2 / 2, so what the model computes stays the same."""
    state = dict(state)
    half = config.head_dim // 2
    for i in range(config.n_layers):
        q = state[f"layers.{i}.q.bias"].float().view(config.n_kv_heads, -1, config.head_dim).mean(1)
        k = state[f"layers.{i}.k.bias"].float().view(config.n_kv_heads, config.head_dim).clone()
        for pair in OUTLIER_PAIRS:
            size = (q[:, pair].square() + q[:, pair + half].square()).sqrt()
            for d in (pair, pair + half):
                k[:, d] += K_OUTLIER * q[:, d] / size
        state[f"layers.{i}.k.bias"] = k.flatten()
    return state
