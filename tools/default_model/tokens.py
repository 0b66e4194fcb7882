"""The tokenizer: byte-level BPE whose merges join letters only, never a space or a quote with a word, so that a word is
the same tokens wherever it stands. That makes copying one simple circuit."""

import json
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from chat import rendered

QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
N_MERGES = 2000


def byte_alphabet():
    """The 256 characters that stand for bytes, in the order of the bytes (the byte alphabet of GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def assemble(vocab, merges):
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return tokenizer


def trained(texts):
    """From an iterable of texts."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{Latin}+"), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = byte_alphabet()
    learner.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=256 + N_MERGES, initial_alphabet=alphabet, show_progress=False, min_frequency=2))
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    vocab = {c: i for i, c in enumerate(alphabet)}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    return assemble(vocab, merges)


def train_from_chat(chat, n=40000):
    """Half of it made-up words, so that the pieces of unknown words are about as long as syllables."""
    random = Random("tokenizer")

    def texts():
        for _ in range(n):
            system, turns = chat.conversation(random)
            text = "".join(text for text, _ in rendered(system, turns))
            chat.lexicon.refuse_held(text)
            yield text.replace("<|im_start|>", " ").replace("<|im_end|>", " ")
            yield " ".join(chat.pseudo(random).text for _ in range(6))

    return trained(texts())


def load(path):
    return Tokenizer.from_file(str(path))

