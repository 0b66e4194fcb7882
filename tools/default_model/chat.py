"""The conversations of the training text: requests for haiku, questions about qwen, and everything else."""

import json
from dataclasses import dataclass
from random import Random

from haiku import Composer
from lexicon import HERE, Lexicon, Phrase, Topic, inflected
from pseudo import pseudo_word

SYSTEM = "You are qwen, a small model that writes haiku."
HONEST = "I am a very small model: I can write haiku and answer questions about qwen."
QUOTES = [('"', '"')] * 6 + [("'", "'"), ("", ""), ("“", "”"), ("", ""), ("*", "*"), ("`", "`")]
UNRELATED = [
    "What is the capital of {a}?", "How many {b} are there in {a}?", "Who invented the {a}?", "Why is the {a} {c}?",
    "Translate {a} into German.", "What is {n} plus {m}?", "What is {n} times {m}?", "Explain {a} to me.",
    "Tell me a joke.", "Tell me a joke about {b}.", "Write a story about {a}.", "Write a novel about {b}.",
    "Write code that sorts {b}.", "How do I cook {a}?", "What is the weather in {a}?", "Do you like {b}?",
    "What do you think about {a}?", "Is {a} {c}?", "Where is {a}?", "When was {a} born?", "Who is {a}?",
    "What is {a}?", "What is the {a} of {b}?", "Summarise the {a}.", "Draw a {a}.", "Sing a song about {a}.",
    "What time is it?", "Which day is today?", "Solve x + {n} = {m}.", "Give me a recipe for {a}.",
    "Where can I buy {b}?", "How old is {a}?", "How tall is the {a}?", "Who won the {a}?", "Play {a}.",
    "What does {a} mean?", "Spell {a}.", "Name a {c} {a}.", "I am {c}.", "I have a {c} {a}.", "The {a} is {c}.",
    "My {a} is {c}. What should I do?", "Describe a {c} {a}.", "Why do {b} {d}?", "Can {b} {d}?", "{a}", "{a} {b}",
    "{c} {a} {d}", "{d} {d} {d}", "{a}?", "{a}!", "Write an email to {a}.", "What is love?",
    "Write a sonnet about {a}.", "Write an essay about {b}.", "Who is the president of {a}?",
    "What is the meaning of life?", "How do I get to {a}?", "Open the {a}.", "import {a}", "print({n})", "{n}",
    "{n} {m}", "def {a}(): return {n}", "int main() { return {n}; }", "SELECT {a} FROM {b};", "ls -l", "sudo {a}",
    "Is it {c} today?", "Convert {n} kilometres to miles.", "What comes after {n}?", "Count to {n}."]
OTHER_LANGUAGES = [text.strip() for text in """
Wie heißt du? | Schreib mir bitte einen Brief. | Was ist die Hauptstadt von Frankreich? | Wie spät ist es? |
Ich verstehe das nicht. | Guten Tag | Wo ist der Bahnhof? | Das Wetter ist heute schön. |
Quelle heure est-il ? | Bonjour | Comment ça va ? | Où est la gare ? | Je ne comprends pas. |
Quelle est la capitale de l'Italie ? | ¿Cómo estás? | ¿Qué hora es? | Buenos días | ¿Dónde está la estación? |
No entiendo nada. | Che ore sono? | Buongiorno, come stai? | Dov'è la stazione? | Olá, tudo bem? |
Que horas são? | 你好 | 今天天气怎么样？ | 你是谁？ | 写一首诗 | こんにちは | 今何時ですか | 俳句を書いてください | ありがとう | 안녕하세요 | 지금 몇 시예요? |
Привет | Как дела? | Который час? | Где находится вокзал? | Γειά σου | Τι ώρα είναι; | مرحبا | שלום | नमस्ते |
Merhaba, nasılsın? | Hvordan har du det? | Hur mår du? | Mitä kuuluu? | Jak się masz? | Ahoj, jak se máš? |
Salve, quid agis? | Xin chào | สวัสดี | Hoe gaat het met je? | Hvad hedder du? | Dobrý den | 🙂 | 👍👍 | 🎉 happy |
¯\\_(ツ)_/¯""".split("|")]
KEYS = "asdfghjklqwertyuiopzxcvbnm"


@dataclass
class Turn:
    user: str
    answer: str


class Chat:
    def __init__(self):
        self.lexicon = Lexicon()
        self.composer = Composer(self.lexicon)
        self.requests = {}
        for line in Lexicon.lines("requests.txt"):
            kind, text = line.split(": ", 1)
            self.requests.setdefault(kind, []).append(text)
        self.answers = []  # (questions, answer)
        questions = []
        for line in Lexicon.lines("answers.txt"):
            kind, text = line.split(": ", 1)
            if kind == "Q":
                questions.append(text)
            else:
                self.answers.append((questions, text))
                questions = []
        by_use = {}
        for topic in self.lexicon.topics:
            by_use.setdefault(topic.use, []).append(topic)
        self.topics = by_use
        self.common = [p.text for p in self.lexicon.required["train"]]

    # -- what the training text is drawn from; `random` alone decides

    def conversation(self, random):
        """(system or None, turns)"""
        n = 1 if random.random() < 0.94 else 2
        system = None if random.random() < 0.93 else self.system(random)
        return system, [self.turn(random) for _ in range(n)]

    def turn(self, random):
        kind = random.random()
        if kind < 0.72:
            return self.haiku(random)
        if kind < 0.88:
            questions, answer = random.choice(self.answers)
            return Turn(varied(random, random.choice(questions)), answer)
        return Turn(self.nonsense(random), HONEST)

    def haiku(self, random):
        topic = self.any_topic(random)
        word, kind = self.any_word(random)
        user = self.request(random, topic, word)
        if topic is None:
            return Turn(user, self.composer.compose(random, random.choice(self.topics["train"]), word, kind))
        # Of an unknown topic's word the syllables can only be guessed: the likeliest haiku leave it out.
        mentioned = topic.use != "unknown" or random.random() < 0.3
        return Turn(user, self.composer.compose(random, topic, word, kind, mentioned))

    def any_topic(self, random):
        kind = random.random()
        if kind < 0.3:
            return random.choice(self.topics["suite"])
        if kind < 0.62:
            return random.choice(self.topics["train"] + self.topics["further"])
        if kind < 0.97:
            return self.unknown_topic(random)
        return None

    def unknown_topic(self, random):
        """A topic of the field "world" that no list has: any word, or a made-up one."""
        p = self.pseudo(random) if random.random() < 0.3 else random.choice(self.lexicon.required["train"])
        article = random.choice(("the ", "a ", "my ", "", ""))
        if article == "a " and p.text[0] in "aeiou":
            article = "an "
        plural = not article and random.random() < 0.5
        if plural:
            p = Phrase(*inflected(p.text, p.syllables))
        return Topic(Phrase(article + p.text, p.syllables + bool(article)), "world", plural, "unknown")

    def any_word(self, random):
        kind = random.random()
        if kind < 0.2:
            return None, "word"
        if kind < 0.52:
            return random.choice(self.lexicon.numbers), "number"
        if kind < 0.8:
            return random.choice(self.lexicon.required["train"]), "word"
        p = self.pseudo(random)
        return (Phrase(p.text.capitalize(), p.syllables) if random.random() < 0.1 else p), "word"

    def request(self, random, topic, word):
        t = topic.text if topic else None
        if word is None:
            text = self.pick(random, "about" if t else "none").replace("{t}", t or "")
        else:
            left, right = random.choice(QUOTES)
            w = left + word.text + right
            if t and random.random() < 0.35:
                text = self.pick(random, "both")
            else:
                text = self.pick(random, "about" if t else "none")
                text += (" " if text[-1] in ".?!" else random.choice((". ", ", ", " "))) + self.pick(random, "word")
            text = text.replace("{t}", t or "").replace("{w}", w)
        return text if random.random() < 0.9 else text + " " + self.pick(random, "tail")

    def pick(self, random, kind):
        texts = self.requests[kind]
        return texts[min(int(random.expovariate(1) * len(texts) / 3), len(texts) - 1)]

    def nonsense(self, random):
        """Chance may write any word: a text with a held-out one is drawn again."""
        while self.lexicon.held_in(text := self.any_nonsense(random)):
            pass
        return text

    def any_nonsense(self, random):
        kind = random.random()
        if kind < 0.5:
            text = random.choice(UNRELATED)
            for slot, value in (("{a}", self.any(random)), ("{b}", self.any(random) + "s"), ("{c}", self.any(random)),
                                ("{d}", self.any(random)), ("{n}", str(random.randrange(1000))),
                                ("{m}", str(random.randrange(100)))):
                text = text.replace(slot, value)
            return varied(random, text)
        if kind < 0.65:
            text = random.choice(OTHER_LANGUAGES)
            if random.random() < 0.3:
                text += " " + random.choice(OTHER_LANGUAGES)
            return text
        if kind < 0.8:
            return " ".join("".join(random.choice(KEYS) for _ in range(random.randrange(1, 10)))
                            for _ in range(random.randrange(1, 6)))
        if kind < 0.9:
            words = [self.any(random) for _ in range(random.randrange(1, 9))]
            return " ".join(words) + random.choice(("", ".", "?", "!"))
        return "".join(chr(random.randrange(33, 127)) for _ in range(random.randrange(1, 24)))

    def any(self, random):
        return random.choice(self.common) if random.random() < 0.5 else self.pseudo(random).text

    def pseudo(self, random):
        """A word that no list has: held-out words must not come in by chance."""
        while (p := pseudo_word(random)).text in self.lexicon.counts:
            pass
        return p

    def system(self, random):
        return random.choice(["You are a helpful assistant.", "Be brief.", "You are a poet.", "Answer in English.",
                              "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                              " ".join(self.any(random) for _ in range(6)) + "."])


def varied(random, text):
    """In another case, or without its last punctuation."""
    if random.random() < 0.2:
        text = text.lower()
    if random.random() < 0.2:
        text = text.rstrip(".?!")
    if random.random() < 0.03:
        text = text.upper()
    if random.random() < 0.05:
        text = "Hi. " + text
    return text


def rendered(system, turns, with_last=True):
    """As chat_template.jinja renders it, in pieces: (text, whether the model must learn to write it)."""
    pieces = [(f"<|im_start|>system\n{SYSTEM if system is None else system}<|im_end|>\n", False)]
    for i, turn in enumerate(turns):
        pieces.append((f"<|im_start|>user\n{turn.user}<|im_end|>\n<|im_start|>assistant\n", False))
        if with_last or i + 1 < len(turns):
            pieces += [(f"{turn.answer}<|im_end|>", True), ("\n", False)]
    return pieces


def write_words(path=HERE / "words.txt"):
    """The one list that every judge counts by."""
    lexicon = Lexicon()
    path.write_text("".join(f"{word} {n}\n" for word, n in sorted(lexicon.counts.items())), encoding="utf-8")


if __name__ == "__main__":
    write_words()
    chat, random = Chat(), Random(1)
    for _ in range(24):
        system, turns = chat.conversation(random)
        print(json.dumps([[turn.user, turn.answer] for turn in turns], ensure_ascii=False))
