"""Writes haiku_judge.jsonl: haiku, sound and spoilt, with what the judge of tools/default_model says of them.

make_haiku_judge_goldens.py OUT.jsonl. The judge of the tests (tests/haiku.cpp) must say the same."""

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "default_model"))
from chat import Chat  # noqa: E402
from haiku import judged  # noqa: E402

NOISE = list("0479#_@\"*`()/\\~\t\r\0\x7f") + ["é", "ß", "’", "“", "—", "字", "\u00a0", "\ufffd", "😀"]
OF_EACH = 12


def somewhere(random, text, what):
    at = random.randrange(len(text) + 1)
    return text[:at] + what + text[at:]


def beside_a_word(random, text, what):
    at = random.choice([i for i, c in enumerate(text) if c in " \n"])
    return text[:at] + random.choice((what, " " + what)) + text[at:]


def changed_word(random, text, change):
    """With another word in the place of one."""
    words = text.split(" ")
    at = random.randrange(len(words))
    words[at] = change(words[at])
    return " ".join(words)


def in_place_of(word, forms):
    return lambda random, text: text.replace(word, random.choice(forms).replace("W", word))


def changes(chat, word):
    """name: (random, text) -> text. Some leave a haiku sound."""
    lines = [line for pools in chat.composer.fields.values() for n in (5, 7) for line in pools.lines[n]]
    return {
        "sound": lambda random, text: text,
        "upper case": lambda random, text: text.upper(),
        "a mark": lambda random, text: somewhere(random, text, random.choice(",.:;!?'- ")),
        "noise": lambda random, text: beside_a_word(random, text, random.choice(NOISE)),
        "a letter more": lambda random, text: somewhere(random, text, random.choice("aeiouxyz")),
        "unknown word": lambda random, text: changed_word(random, text, lambda _: chat.pseudo(random).text),
        "other word": lambda random, text: changed_word(
            random, text, lambda _: random.choice(chat.lexicon.required["train"]).text),
        "a word twice": lambda random, text: changed_word(random, text, lambda w: f"{w} {w}"),
        "other line": lambda random, text: "\n".join([*text.split("\n")[:2], random.choice(lines).text]),
        "a line less": lambda random, text: "\n".join(text.split("\n")[:2]),
        "a line more": lambda random, text: somewhere(random, text, "\n"),
        "lines in another order": lambda random, text: "\n".join(random.sample(text.split("\n"), 3)),
        "the word in another form": in_place_of(
            word, ["-W", "W-", "W's", "'W'", "Ws", "(W)", '"W"', "W-W", "x-W", "W W", "W, W!", "", "a W", "W_", "4W"]),
        "no hyphen": lambda random, text: text.replace("-", " "),
    }


def main():
    random, chat = Random("haiku judge"), Chat()
    lines, sound = [], Counter()
    for kind in changes(chat, ""):
        for _ in range(OF_EACH * (4 if kind in ("noise", "the word in another form") else 1)):
            word = random.choice(random.choice((chat.lexicon.numbers[:60], chat.lexicon.required["train"])))
            topic = random.choice(chat.topics["suite"])
            text = chat.composer.compose(random, topic, word, "number" if word in chat.lexicon.numbers else "word")
            text = changes(chat, word.text)[kind](random, text)
            right = judged(chat.lexicon, text, word)
            sound[kind] += all(right)
            lines.append(json.dumps({"kind": kind, "word": word.text, "text": text, "sound": all(right)}))
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} haiku; sound: {dict(sound)}")


if __name__ == "__main__":
    main()
