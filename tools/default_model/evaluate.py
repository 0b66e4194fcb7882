"""What the model must do, and how often it does: greedy answers, judged by the counted words."""

from random import Random

import torch

from chat import HONEST, Turn, rendered
from haiku import judged
from lexicon import MINUTES, Phrase

MAX_NEW = 64


def prompt_text(user):
    return "".join(text for text, _ in rendered(None, [Turn(user, "")], with_last=False))


@torch.no_grad()
def answers(model, tokenizer, users, device, batch=2048):
    """Greedy, in FP32. Rows are padded at the end: a causal model does not see it."""
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
            ids[rows, at] = torch.where(done, torch.full_like(at, end), logits.argmax(-1))
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


def report(model, tokenizer, chat, device, failures=3):
    """The table as text. {set: share that pass all} for the callers that decide by it."""
    lines = [f"{'set':28} {'n':>5} {'3 lines':>8} {'word once':>9} {'5-7-5':>7} {'all':>7}"]
    passed = {}
    sets = haiku_sets(chat)
    texts = iter(answers(model, tokenizer, [p for s in sets.values() for p, _ in s], device))
    for name, cases in sets.items():
        results, wrong = [], []
        for prompt, word in cases:
            text = next(texts)
            results.append(judged(chat.lexicon, text, word, word and {word.text.lower(): word.syllables}))
            if not all(results[-1]):
                wrong.append(f"    {prompt} -> {text!r}")
        n = len(results)
        shares = [sum(r[i] for r in results) / n for i in range(3)]
        passed[name] = sum(all(r) for r in results) / n
        lines.append(f"{name:28} {n:5} {shares[0]:8.1%} {shares[1]:9.1%} {shares[2]:7.1%} {passed[name]:7.1%}")
        lines += wrong[:failures]
    random = Random("evaluation of answers")
    asked = [(q, a) for questions, a in chat.answers for q in questions]
    nonsense = [chat.nonsense(random) for _ in range(400)]
    texts = answers(model, tokenizer, [q for q, _ in asked] + nonsense, device)
    for name, cases in (("questions about qwen", asked), ("nonsense", [(q, HONEST) for q in nonsense])):
        own, texts = texts[:len(cases)], texts[len(cases):]
        wrong = [f"    {q} -> {got!r}" for (q, a), got in zip(cases, own) if got != a]
        passed[name] = 1 - len(wrong) / len(cases)
        lines.append(f"{name:28} {len(cases):5} {'':8} {'':9} {'':7} {passed[name]:7.1%}")
        lines += wrong[:failures]
    return "\n".join(lines), passed
