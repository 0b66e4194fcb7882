"""Trains the default model from nothing: train.py OUT [--seed N] [--steps N] ...

Writes OUT/tokenizer.json, OUT/default.gguf and OUT/train.log, whose end is the table of evaluate.py; the exit code is
1 if a figure is missed. One GPU, some minutes. OUT must be empty or new."""

import argparse
import math
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from chat import Chat
from data import LENGTHS, conversations
from evaluate import report
from export import write_gguf
from model import Config, Qwen2, with_k_outliers
from quantise import q8_0_round_trip
from tokens import train_from_chat

# One step in so many also learns to write noise when attention is not scaled: a sharp softmax would otherwise work as
# well, and the fault would not show in the text.
CONFUSION_EVERY = 8
CONFUSION = 0.3


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10_370)
    parser.add_argument("--conversations", type=int, default=1_500_000)
    parser.add_argument("--step-tokens", type=int, default=512 * 128)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser.parse_args()


class Batches:
    """Endless batches; lengths are drawn in proportion to their tokens."""

    def __init__(self, rows, step_tokens, device, seed):
        self.rows = {n: (torch.from_numpy(ids.astype("int32")).to(device), torch.from_numpy(learnt).to(device))
                     for n, (ids, learnt) in rows.items()}
        self.sizes = {n: step_tokens // n for n in rows}
        self.lengths = list(rows)
        self.weights = torch.tensor([float(n * len(rows[n][0])) for n in self.lengths])
        self.random = torch.Generator().manual_seed(seed)
        self.orders = {}

    def next(self):
        n = self.lengths[torch.multinomial(self.weights, 1, generator=self.random).item()]
        ids, learnt = self.rows[n]
        order, at = self.orders.get(n, (None, 0))
        if order is None or at + self.sizes[n] > len(order):
            order, at = torch.randperm(len(ids), generator=self.random).to(ids.device), 0
        chosen = order[at:at + self.sizes[n]]
        self.orders[n] = order, at + self.sizes[n]
        return ids[chosen].long(), learnt[chosen]


def optimiser(model, rate):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=model.embed.weight.is_cuda)


def shipped(model, config, device):
    """The model with the weights that the file will hold: outliers added, matrices through Q8_0."""
    state = with_k_outliers({k: v.detach().float().cpu() for k, v in model.state_dict().items()}, config)
    state = {k: q8_0_round_trip(v) if v.dim() > 1 else v for k, v in state.items()}
    copy = Qwen2(config)
    copy.load_state_dict(state)
    return copy.to(device).eval(), state


def rate_at(step, args):
    """Rises over 300 steps, then falls along a cosine to a hundredth."""
    return args.rate * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))


def train(model, batches, args, log):
    kind = torch.device(args.device).type

    def loss_of(ids, learnt):
        with torch.autocast(kind, torch.bfloat16):
            logits = model(ids[:, :-1])
        target = torch.where(learnt[:, 1:], ids[:, 1:], torch.full_like(ids[:, 1:], -100))
        return F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=-100)

    def confusion_of(ids, learnt):
        """How far the answers are from noise where scores are not divided by the root of head_dim."""
        with torch.autocast(kind, torch.bfloat16):
            logits = model(ids[:, :-1], sharpness=model.c.head_dim ** 0.5)
        far = -logits.float().log_softmax(-1).mean(-1) - math.log(model.c.n_vocab)
        return (far * learnt[:, 1:]).sum() / learnt.sum()

    step_loss, step_confusion = loss_of, confusion_of
    if kind == "cuda":
        step_loss, step_confusion = (torch.compile(f, dynamic=False) for f in (loss_of, confusion_of))
    opt = optimiser(model, args.rate)
    every = max(1, min(500, args.steps // 4))
    since, total = time.time(), 0.0
    for step in range(args.steps):
        for group in opt.param_groups:
            group["lr"] = rate_at(step, args)
        batch = batches.next()
        loss = step_loss(*batch)
        loss.backward()
        if step % CONFUSION_EVERY == 0 and batch[0].shape[1] == LENGTHS[0]:
            (CONFUSION * step_confusion(*batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        total = total + loss.detach()
        if (step + 1) % every == 0:
            speed = every * args.step_tokens / (time.time() - since)
            log(f"step {step + 1}  loss {total.item() / every:.4f}  rate {rate_at(step, args):.5f}  "
                f"{speed / 1e6:.2f} M tokens/s")
            since, total = time.time(), 0.0


def main():
    args = options()
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        sys.exit(f"train.py: {args.out} is not empty, and everything is made anew: name a new folder")
    log_file = open(args.out / "train.log", "w", encoding="utf-8")
    began = time.time()

    def log(text):
        line = f"[{time.time() - began:6.1f} s] {text}"
        print(line, flush=True)
        print(line, file=log_file, flush=True)

    log(" ".join(f"{k}={v}" for k, v in vars(args).items() if k != "out"))
    chat = Chat()
    tokenizer_path = str(args.out / "tokenizer.json")
    tokenizer = train_from_chat(chat)
    tokenizer.save(tokenizer_path)
    log(f"tokenizer of {tokenizer.get_vocab_size()} tokens")
    rows = conversations(tokenizer_path, args.seed, args.conversations, args.processes)
    log("conversations: " + ", ".join(f"{len(ids)} of up to {n} tokens" for n, (ids, _) in rows.items()))

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    config = Config(n_vocab=tokenizer.get_vocab_size())
    model = Qwen2(config).to(args.device)
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters, {config.values()}")
    train(model, Batches(rows, args.step_tokens, args.device, args.seed), args, log)

    model, state = shipped(model, config, args.device)
    torch.set_float32_matmul_precision("highest")
    write_gguf(args.out / "default.gguf", state, config, tokenizer)
    log(f"default.gguf: {(args.out / 'default.gguf').stat().st_size:,} bytes")
    table, missed = report(model, tokenizer, chat, args.device)
    log("the weights of the file\n" + table)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
