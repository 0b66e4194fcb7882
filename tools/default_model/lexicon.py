"""The counted words: lexicon.txt, topics.txt and required.txt as Python values, and inflection."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNITS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
         "sixteen seventeen eighteen nineteen").split()
ARTICLES = {"a", "an", "the"}
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
        for line in self.lines("lexicon.txt"):
            self.read_entry(line)
        for line in self.lines("required.txt"):
            use, count, words = re.fullmatch(r"(\w+) (\d): (.*)", line).groups()
            for word in words.split():
                self.count(word, int(count))
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
        self.held = self.held_words()

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
                self.count(base, n)
            entries[kind].append(Phrase(base, n))
            if kind in ("noun", "verb"):
                other, m = inflected(word, n)
                self.count(other, m)
                entries[kind + "s"].append(Phrase(other, m))

    def count(self, word, syllables):
        word = word.lower()
        if self.counts.setdefault(word, syllables) != syllables:
            raise ValueError(f"{word}: {self.counts[word]} or {syllables} syllables?")

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

    def held_words(self):
        """The words that the training text must not hold, with their plurals: of the held-out words and topics."""
        held = [p.text for p in self.required["held"]]
        held += [word for t in self.topics if t.use == "held" for word in t.text.lower().split()]
        return {form for word in held if word not in ARTICLES for form in (word, inflected(word, 0)[0])}

    def held_in(self, text):
        """The held-out words that a text holds."""
        return self.held & set(re.findall(r"[^\W_]+", text.lower()))

    def refuse_held(self, text):
        """Every text that the model or its tokenizer is trained on passes here."""
        if held := self.held_in(text):
            raise ValueError(f"held out, yet in the training text: {', '.join(sorted(held))}: {text!r}")

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
    for problem in lexicon.unknown_words():
        print(problem)
    print(len(lexicon.counts), "words;", len(lexicon.topics), "topics;",
          {k: len(v) for k, v in lexicon.required.items()})
