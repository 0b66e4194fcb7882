"""Writes default_model.jsonl: greedy answers of the default model, by PyTorch in FP32 from the GGUF file alone.

make_default_model_goldens.py OUT.jsonl. Needs torch, gguf, tokenizers, jinja2. The file is read by gguf-py, its weights
are dequantised to FP32; tokenizer and chat template are the file's own, through HF tokenizers and Jinja2. Only prompts
are kept at which the best token leads by MARGIN at every step: with F16 operands and an F16 cache a smaller lead may
go to the other token, and that would be no fault."""

import json
import sys
from pathlib import Path

import jinja2
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "default_model"))
from chat import Chat  # noqa: E402
from evaluate import haiku_sets  # noqa: E402
from model import rotated  # noqa: E402
from read_gguf import read_model  # noqa: E402

N_PROMPTS = 200
MAX_NEW = 64
MARGIN = 0.05


def last_logits(model, ids, start, cache):
    """Of `ids` at the positions from `start` on, after what `cache` (keys and values by layer) holds."""
    c, n = model.c, len(ids)
    cos, sin = model.cos[start:start + n], model.sin[start:start + n]
    future = torch.arange(start + n)[None, :] > torch.arange(start, start + n)[:, None]
    x = model.embed(torch.tensor(ids))
    for i, layer in enumerate(model.layers):
        h = layer.attn_norm(x)
        q, k, v = (linear(h).view(n, -1, c.head_dim).transpose(0, 1) for linear in (layer.q, layer.k, layer.v))
        k = rotated(k, cos, sin)
        if i in cache:
            k, v = torch.cat((cache[i][0], k), 1), torch.cat((cache[i][1], v), 1)
        cache[i] = k, v
        group = c.n_heads // c.n_kv_heads
        scores = rotated(q, cos, sin) @ k.repeat_interleave(group, 0).transpose(1, 2) / c.head_dim ** 0.5
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        attn = weights @ v.repeat_interleave(group, 0)
        x = x + layer.o(attn.transpose(0, 1).reshape(n, -1))
        h = layer.ffn_norm(x)
        x = x + layer.down(F.silu(layer.gate(h)) * layer.up(h))
    return F.linear(model.output_norm(x[-1]), model.embed.weight)


@torch.no_grad()
def greedy(model, prompt, end):
    """(new ids without the end, smallest lead)"""
    ids, lead, cache, done = list(prompt), float("inf"), {}, 0
    for _ in range(MAX_NEW):
        best = last_logits(model, ids[done:], done, cache).topk(2)
        done = len(ids)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        if best.indices[0] == end:
            break
        ids.append(best.indices[0].item())
    return ids[len(prompt):], lead


def prompts():
    """Of all kinds, in turn."""
    from random import Random

    random = Random("goldens")
    chat = Chat()
    groups = [[p for p, _ in cases] for cases in haiku_sets(chat).values()]
    groups.append([q for questions, _ in chat.answers for q in questions])
    groups.append([chat.nonsense(random) for _ in range(100)])
    while True:
        for group in groups:
            yield random.choice(group)


def main():
    torch.set_num_threads(1)  # the products are small: several threads mostly wait for each other
    model, tokenizer, template = read_model(ROOT / "tools" / "default_model" / "default.gguf")
    chat_template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    end = tokenizer.token_to_id("<|im_end|>")
    seen, lines = set(), []
    for prompt in prompts():
        if len(lines) == N_PROMPTS:
            break
        if prompt in seen:
            continue
        seen.add(prompt)
        text = chat_template.render(messages=[{"role": "user", "content": prompt}], add_generation_prompt=True)
        prompt_ids = tokenizer.encode(text, add_special_tokens=False).ids
        ids, lead = greedy(model, prompt_ids, end)
        if lead >= MARGIN:
            lines.append(json.dumps({"prompt": prompt, "prompt_ids": prompt_ids, "ids": ids}))
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} of {len(seen)} prompts")


if __name__ == "__main__":
    main()
