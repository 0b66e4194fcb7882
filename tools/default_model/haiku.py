"""Haiku of 5, 7 and 5 syllables by the counted words, and their judge."""

import re
from collections import defaultdict
from random import Random

from lexicon import Phrase

LENGTHS = (5, 7, 5)
POOL_SEED = 20
PLAIN = re.compile(r"[A-Za-z ,.:;!?'-]*")  # all that a line may be made of: anything else is noise
SPEECH = {"s": ["says", "sings", "hums"], "p": ["say", "sing", "hum"]}
# What may stand before a required word of any kind.
BEFORE = {1: ["oh,", "hush:", "say", "still,"],
          2: ["whisper", "again,", "softly,", "I think", "you say"],
          3: ["I whisper", "remember", "on my tongue,", "I still hear", "in my mind,"],
          4: ["somebody says", "again I hear", "the night answers", "I call your name:"]}
BEFORE_NUMBER = {1: ["still"], 2: ["I count", "only"]}


def words_of(text):
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower())


def times(word, text):
    """How often `word` (or several words) stands in the text, not as a part of another word."""
    return len(re.findall(rf"(?<![\w-]){re.escape(word.lower())}(?![\w-])", text.lower()))


def judged(lexicon, text, word=None, extra=None):
    """What is right about a haiku: (three lines, the word once, 5-7-5). `extra`: syllables of unlisted words."""
    lines = text.split("\n")
    three = len(lines) == 3 and all(line.strip() for line in lines)
    once = word is None or times(word.text, text) == 1
    counts = tuple(lexicon.syllables(line, extra) if PLAIN.fullmatch(line) else None for line in lines)
    return three, once, counts == LENGTHS


def ranked(random, items):
    """In an order of its own, which draw() prefers."""
    items = sorted(items, key=lambda item: item if isinstance(item, str) else item.text)
    random.shuffle(items)
    return items


def draw(random, items):
    """One item; the chances fall with the rank, so that one of them is clearly the most likely."""
    return items[min(int(random.paretovariate(0.7)) - 1, len(items) - 1)] if len(items) > 1 else items[0]


class FieldPools:
    """The phrases of a field by syllables, made once."""

    def __init__(self, lexicon, name):
        self.lexicon = lexicon
        self.random = Random(f"{POOL_SEED} {name}")
        own, common = lexicon.fields[name].words, lexicon.fields["any"].words
        self.words = defaultdict(list)
        for kind in ("noun", "nouns"):
            self.words[kind] = list(own[kind])
        for kind in ("adj", "verb", "verbs"):
            self.words[kind] = 2 * own[kind] + common[kind]
        for kind in ("adverb", "prep"):
            self.words[kind] = common[kind]
        self.lines = {n: self.pool(n, ["the adj noun verbs", "adj nouns verb", "nouns verb prep the noun",
                                       "the noun verbs prep the noun", "a adj noun prep the noun",
                                       "adj noun, adj noun", "prep the adj noun", "the noun verbs adverb",
                                       "nouns verb adverb", "the adj noun verbs adverb",
                                       "adj nouns verb prep the noun", "prep the noun a adj noun"], 60)
                      for n in (5, 7)}
        self.closers = ranked(self.random, common["closer"])
        self.middles = ranked(self.random, common["middle"])
        self.after_number = self.pools(["nouns", "adj nouns", "nouns verb", "adj nouns verb", "nouns prep the noun",
                                        "nouns verb prep the noun", "adj nouns verb adverb", "nouns verb adverb"])
        self.after_one = self.pools(["noun", "adj noun", "noun verbs", "adj noun verbs", "noun prep the noun",
                                     "noun verbs prep the noun", "adj noun verbs adverb", "noun verbs adverb"])
        self.places = self.pools(["prep the noun", "prep the adj noun"])
        self.speakers = self.pools(["the noun SAYS", "the adj noun SAYS"])
        self.acts = self.pools(["verbs", "verbs adverb", "verbs prep the noun", "verbs prep the adj noun"])
        self.plural_acts = self.pools(["verb", "verb adverb", "verb prep the noun", "verb prep the adj noun"])

    def pools(self, patterns):
        return {n: pool for n in range(1, 7) if (pool := self.pool(n, patterns, 16))}

    def filled(self, pattern):
        parts = []
        for slot in pattern.split():
            kind, comma = slot.rstrip(","), "," if slot.endswith(",") else ""
            if kind == "SAYS":
                parts.append(self.random.choice(SPEECH["s"]) + comma)
            elif kind in self.words:
                parts.append(self.random.choice(self.words[kind]).text + comma)
            else:
                parts.append(kind)
        text = " ".join(parts)
        return re.sub(r"\ba (?=[aeiou])", "an ", text)

    def pool(self, n, patterns, size):
        found = {}
        for _ in range(size * 60):
            text = self.filled(self.random.choice(patterns))
            words = [w for w in text.replace(",", "").split() if w not in ("the", "a", "an")]
            if self.lexicon.syllables(text) == n and len(set(words)) == len(words):
                found[text] = Phrase(text, n)
            if len(found) == size:
                break
        return ranked(self.random, found.values())


class Composer:
    def __init__(self, lexicon):
        self.lexicon = lexicon
        self.fields = {name: FieldPools(lexicon, name) for name in lexicon.fields if name != "any"}
        # Each topic has its own order of preference among the lines of its field.
        self.topic_lines = {}
        for topic in lexicon.topics:
            random = Random(f"{POOL_SEED} {topic.text}")
            pools = self.fields[topic.field]
            self.topic_lines[topic.text] = {
                5: ranked(random, pools.lines[5]), 7: ranked(random, pools.lines[7]),
                "closer": ranked(random, pools.closers), "middle": ranked(random, pools.middles)}

    def compose(self, random, topic, word=None, kind="word", mentioned=False):
        """A haiku. `word`: required, a Phrase of `kind` "number" or "word". `mentioned`: a line may begin with the
        topic. Draws again until the word occurs once."""
        while True:
            lines = self.drawn(random, topic, word, kind, topic.phrase if mentioned else None)
            text = "\n".join(lines)
            if word is not None and times(word.text, text) != 1:
                continue
            content = [w for w in words_of(text) if len(w) > 3]
            if len(set(content)) == len(content) or random.random() < 0.02:
                return text

    def drawn(self, random, topic, word, kind, mention):
        pools = self.fields[topic.field]
        known = self.topic_lines.get(topic.text)
        lines = [None, None, None]
        if word is not None:
            fitting = [i for i in (1, 0, 2) if word.syllables <= LENGTHS[i]]
            at = fitting[0] if len(fitting) == 1 else random.choices((1, 0, 2), (5, 3, 1))[0]
            lines[at] = self.word_line(random, pools, LENGTHS[at], word, kind)
        if mention is not None and random.random() < 0.8:
            free = [i for i in (0, 2, 1) if lines[i] is None and mention.syllables < LENGTHS[i]]
            acts = pools.plural_acts if topic.plural else pools.acts
            free = [i for i in free if LENGTHS[i] - mention.syllables in acts]
            if free:
                at = free[0]
                lines[at] = f"{mention.text} {draw(random, acts[LENGTHS[at] - mention.syllables]).text}"
        for i, n in enumerate(LENGTHS):
            if lines[i] is None:
                lines[i] = self.free_line(random, pools, known, i, n)
        return lines

    @staticmethod
    def free_line(random, pools, known, i, n):
        if i == 2 and random.random() < 0.35:
            return draw(random, known["closer"] if known else pools.closers).text
        if i == 1 and random.random() < 0.1:
            return draw(random, known["middle"] if known else pools.middles).text
        return draw(random, known[n] if known else pools.lines[n]).text

    def word_line(self, random, pools, n, word, kind):
        rest = n - word.syllables
        if rest == 0:
            return word.text
        if kind == "number":
            after = pools.after_one if word.text == "one" else pools.after_number
            if rest in (1, 2) and random.random() < 0.2:
                return f"{draw(random, BEFORE_NUMBER[rest])} {word.text}"
            return f"{word.text} {draw(random, after[rest]).text}"
        choices = []
        if rest in BEFORE:
            choices.append(lambda: f"{draw(random, BEFORE[rest])} {word.text}")
        if rest in pools.places:
            choices.append(lambda: f"{word.text} {draw(random, pools.places[rest]).text}")
        if rest in pools.speakers:
            choices.append(lambda: f"{draw(random, pools.speakers[rest]).text} {word.text}")
        weights = (5, 3, 2)[:len(choices)]
        return random.choices(choices, weights)[0]()
