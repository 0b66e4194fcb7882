"""The counted words: lexicon.txt, topics.txt and required.txt as Python values, and inflection."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNITS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
         "sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words():
    """The words for 0 to 100."""
    tens = [ten + tail for ten in TENS for tail in [""] + ["-" + unit for unit in UNITS[1:10]]]
    return UNITS + tens + ["one hundred"]


MINUTES = number_words()[:60]


@dataclass(frozen=True)
class Phrase:
    """Words and their syllables."""
    text: str
    syllables: int


@dataclass
class Field:
    """The words and lines of a field; `any` is part of each."""
    words: dict = field(default_factory=lambda: defaultdict(list))  # kind: [Phrase]


@dataclass(frozen=True)
class Topic:
    phrase: Phrase
    field: str
    plural: bool
    use: str  # "train", "suite", "further", "held"

    @property
    def text(self):
        return self.phrase.text


def inflected(word, syllables):
    """The plural of a noun, or the third person of a verb. After a hissing sound it has one syllable more."""
    if "/" in word:
        return word.split("/")[1], syllables
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es", syllables + 1
    if re.search(r"(ce|ge|se|ze)$", word):
        return word + "s", syllables + 1
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies", syllables
    return word + "s", syllables


class Lexicon:
    def __init__(self):
        self.counts = {}  # syllables by word, all lower case
        self.fields = defaultdict(Field)
        self.topics = []
        self.required = {"train": [], "held": []}  # [Phrase]
        self.sources = defaultdict(set)  # kinds of entries by word, to find words in two places
        for line in self.lines("lexicon.txt"):
            self.read_entry(line)
        for line in self.lines("required.txt"):
            use, count, words = re.fullmatch(r"(\w+) (\d): (.*)", line).groups()
            for word in words.split():
                self.count(word, int(count), use)
                if use in self.required:
                    self.required[use].append(Phrase(word, int(count)))
        for kind in ("noun", "adj"):
            for name in self.fields:
                self.required["train"] += [p for p in self.fields[name].words[kind]]
        self.required["train"] = sorted(set(self.required["train"]), key=lambda p: p.text)
        for line in self.lines("topics.txt"):
            name, topics = line.split(": ")
            self.topics += [self.topic(name, text.strip()) for text in topics.split(",")]
        self.numbers = [Phrase(word, self.syllables(word)) for word in number_words()]

    @staticmethod
    def lines(name):
        lines = (HERE / name).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    def read_entry(self, line):
        name, kind, count, words = re.fullmatch(r"(\w+)\.(\w+) (\d): (.*)", line).groups()
        entries = self.fields[name].words
        if kind in ("closer", "middle"):
            entries[kind] += [Phrase(text.strip(), int(count)) for text in words.split("|")]
            return
        for word in words.split():
            base, n = word.split("/")[0].replace("_", " "), int(count)
            if " " not in base:
                self.count(base, n, "lexicon")
            entries[kind].append(Phrase(base, n))
            if kind in ("noun", "verb"):
                other, m = inflected(word, n)
                self.count(other, m, "lexicon")
                entries[kind + "s"].append(Phrase(other, m))

    def count(self, word, syllables, source):
        word = word.lower()
        if self.counts.setdefault(word, syllables) != syllables:
            raise ValueError(f"{word}: {self.counts[word]} or {syllables} syllables?")
        self.sources[word].add(source)

    def topic(self, name, text):
        uses = {"!": "suite", "+": "further", "-": "held"}
        plain = text.strip("=!+-")
        return Topic(Phrase(plain, self.syllables(plain)), name, text[0] == "=", uses.get(text[-1], "train"))

    def syllables(self, text, extra=None):
        """Of all words of `text`; None if one is not known. `extra` has counts of further words."""
        total = 0
        for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower()):
            n = (extra or {}).get(word) or self.counts.get(word)
            if n is None:
                return None
            total += n
        return total

    def unknown_words(self):
        """Words of lines and topics whose syllables are not known, and lines with other sums than they say."""
        for topic in self.topics:
            if topic.phrase.syllables is None:
                yield topic.text
        for entries in self.fields.values():
            for kind, phrases in entries.words.items():
                for p in phrases:
                    if self.syllables(p.text) != p.syllables:
                        yield f"{kind}: {p.text}: {p.syllables}, counted {self.syllables(p.text)}"


if __name__ == "__main__":
    lexicon = Lexicon()
    print("\n".join(lexicon.unknown_words()))
    held = {p.text for p in lexicon.required["held"]}
    print("held-out words that the training text has:", [w for w in held if lexicon.sources[w] != {"held"}])
    print(len(lexicon.counts), "words;", len(lexicon.topics), "topics;",
          {k: len(v) for k, v in lexicon.required.items()})
