"""What the model must do, and how often it does: evaluate.py FILE.gguf prints the table. Answers are judged by the
counted words."""

import sys
from itertools import islice
from random import Random

import torch

from chat import HONEST, Chat, Turn, rendered
from export import TEMP, TOP_K, TOP_P
from haiku import judged
from lexicon import MINUTES, Phrase

MAX_NEW = 64
SEED = 1  # of the sampled answers
HAIKU = ("three lines", "word once", "5-7-5", "all")
DEMANDS = {  # the least shares
    "minutes x suite topics": {"all": 1},
    "minutes x further topics": {"three lines": 0.98, "word once": 0.98, "5-7-5": 0.95},
    "held-out words": {"all": 0.8},
    "held-out topics": {"all": 0.9},
    "questions about qwen": {"all": 1},
}


def prompt_text(user):
    return "".join(text for text, _ in rendered(None, [Turn(user, "")], with_last=False))


def greedy(logits):
    return logits.argmax(-1)


def sampler(seed):
    """Draws as the file suggests."""
    random = torch.Generator().manual_seed(seed)

    def draw(logits):
        best = (logits / TEMP).topk(TOP_K)
        p = best.values.softmax(-1)
        p = p.where(p.cumsum(-1) - p < TOP_P, 0)
        at = p.cpu().multinomial(1, generator=random).to(logits.device)
        return best.indices.gather(-1, at).squeeze(-1)

    return draw


@torch.no_grad()
def answers(model, tokenizer, users, device, choose=greedy, batch=2048):
    """In FP32. Rows are padded at the end: a causal model does not see it."""
    end = tokenizer.token_to_id("<|im_end|>")
    texts = []
    for start in range(0, len(users), batch):
        prompts = [e.ids for e in tokenizer.encode_batch([prompt_text(u) for u in users[start:start + batch]],
                                                         add_special_tokens=False)]
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest + MAX_NEW, dtype=torch.long, device=device)
        for row, prompt in zip(ids, prompts):
            row[:len(prompt)] = torch.tensor(prompt, device=device)
        at = torch.tensor([len(p) for p in prompts], device=device)
        rows = torch.arange(len(prompts), device=device)
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        for step in range(MAX_NEW):
            logits = model(ids[:, :longest + step])[rows, at - 1]
            ids[rows, at] = torch.where(done, torch.full_like(at, end), choose(logits))
            done |= ids[rows, at] == end
            at += 1
            if done.all():
                break
        for row, prompt in zip(ids.tolist(), prompts):
            new = row[len(prompt):]
            texts.append(tokenizer.decode(new[:new.index(end)] if end in new else new))
    return texts


def ask(topic, word):
    return f'Write a haiku about {topic}. Use the word "{word}".'


def haiku_sets(chat):
    """name: [(prompt, word or None)]"""
    random = Random("evaluation")
    topics = {use: [t.text for t in group] for use, group in chat.topics.items()}
    minutes = [Phrase(w, chat.lexicon.syllables(w)) for w in MINUTES]
    held = chat.lexicon.required["held"]
    some = topics["further"] + random.sample(topics["suite"], 6)
    return {
        "minutes x suite topics": [(ask(t, w.text), w) for t in topics["suite"] for w in minutes],
        "minutes x further topics": [(ask(t, w.text), w) for t in topics["further"] for w in minutes],
        "minutes, other phrasings": [(chat.request(random, t, w), w) for w in minutes
                                     for t in random.sample(chat.topics["suite"], 10)],
        "held-out words": [(ask(t, w.text), w) for w in held for t in some],
        "held-out topics": [(ask(t, w.text), w) for t in topics["held"] for w in random.sample(minutes, 12)],
        "held-out both": [(ask(t, w.text), w) for t in topics["held"] for w in random.sample(held, 6)],
        "no word, all topics": [(f"Write a haiku about {t}.", None) for group in topics.values() for t in group],
        "known words": [(ask(random.choice(topics["train"]), w.text), w)
                        for w in random.sample(chat.lexicon.required["train"], 300)],
        "zero to hundred": [(ask(random.choice(topics["train"]), w.text), w) for w in chat.lexicon.numbers],
    }


def exact_sets(chat):
    """name: [(prompt, answer)]"""
    random = Random("evaluation of answers")
    return {"questions about qwen": [(q, a) for questions, a in chat.answers for q in questions],
            "nonsense": [(chat.nonsense(random), HONEST) for _ in range(400)]}


def right_haiku(chat, text, word):
    right = judged(chat.lexicon, text, word, word and {word.text.lower(): word.syllables})
    return dict(zip(HAIKU, (*right, all(right))))


def report(model, tokenizer, chat, device, failures=3):
    """(the table as text with some failures of each set, what falls short of DEMANDS)"""
    lines = [f"{'set':32} {'n':>5} " + " ".join(f"{what:>11}" for what in HAIKU)]
    missed = []

    def judge_set(name, cases, right, choose=greedy):
        texts = answers(model, tokenizer, [prompt for prompt, _ in cases], device, choose)
        results = [right(text, wanted) for text, (_, wanted) in zip(texts, cases)]
        shares = {what: sum(r[what] for r in results) / len(results) for what in results[0]}
        lines.append(f"{name:32} {len(cases):5} " + " ".join(
            f"{shares[what]:11.1%}" if what in shares else " " * 11 for what in HAIKU))
        wrong = (f"    {prompt} -> {text[:120]!r}" for (prompt, _), text, r in zip(cases, texts, results) if not r["all"])
        lines.extend(islice(wrong, failures))
        missed.extend(f"{name}, {what}: {shares[what]:.1%}, should be {least:.0%}"
                      for what, least in DEMANDS.get(name, {}).items() if shares[what] < least)

    sets = haiku_sets(chat)
    for name, cases in sets.items():
        judge_set(name, cases, lambda text, word: right_haiku(chat, text, word))
    for name in ("minutes x suite topics", "minutes x further topics"):
        judge_set(f"{name}, sampled", sets[name], lambda text, word: right_haiku(chat, text, word), sampler(SEED))
    for name, cases in exact_sets(chat).items():
        judge_set(name, cases, lambda text, answer: {"all": text == answer})
    return "\n".join(lines + (missed or ["nothing is missed"])), missed


def main():
    from read_gguf import read_model  # training does without gguf-py

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer, _ = read_model(sys.argv[1])
    table, missed = report(model.to(device), tokenizer, Chat(), device)
    print(table)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
