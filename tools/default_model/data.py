"""Conversations as arrays of tokens, made by several processes; the same for any number of them."""

import multiprocessing
import os
from random import Random

import numpy as np

from chat import Chat, rendered
from tokens import load

CHUNK = 2000
LENGTHS = (96, 128, 192)  # rows are padded to one of these; the few longer conversations are left out
_worker = {}


def start_worker(tokenizer):
    _worker["chat"] = Chat()
    _worker["tokenizer"] = load(tokenizer)


def chunk(seed):
    """CHUNK conversations by padded length: (ids uint16, learnt bool)."""
    random = Random(seed)
    pieces, sizes = [], []
    for _ in range(CHUNK):
        parts = rendered(*_worker["chat"].conversation(random))
        _worker["chat"].lexicon.refuse_held("".join(text for text, _ in parts))
        pieces += [text for text, _ in parts]
        sizes.append([learnt for _, learnt in parts])
    encoded = iter(_worker["tokenizer"].encode_batch_fast(pieces, add_special_tokens=False))
    by_length = {length: ([], []) for length in LENGTHS}
    for learnt in sizes:
        ids, mask = [], []
        for flag in learnt:
            part = next(encoded).ids
            ids += part
            mask += [flag] * len(part)
        length = next((m for m in LENGTHS if len(ids) <= m), None)
        if length is not None:
            pad = length - len(ids)
            by_length[length][0].append(ids + [0] * pad)
            by_length[length][1].append(mask + [False] * pad)
    return {length: (np.array(ids, np.uint16).reshape(-1, length), np.array(learnt, bool).reshape(-1, length))
            for length, (ids, learnt) in by_length.items()}


def conversations(tokenizer, seed, n, processes):
    """By padded length: (ids (rows, length), learnt (rows, length))."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    seeds = [f"{seed} {i}" for i in range(n // CHUNK)]
    with multiprocessing.get_context("fork").Pool(processes, start_worker, (tokenizer,)) as pool:
        chunks = pool.map(chunk, seeds, chunksize=1)
    return {length: tuple(np.concatenate([c[length][part] for c in chunks]) for part in (0, 1)) for length in LENGTHS}
