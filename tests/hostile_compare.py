#!/usr/bin/env python3
"""Compares what the loader accepts with what gguf-py accepts.

    hostile_compare.py BUILD_DIR          (needs: pip install gguf)

make_hostile_files writes the malformed files and the valid controls and says what the loader thinks
of each; gguf-py reads the same files, each in a process of its own with a limit of time and memory.
Prints a table of all files on which the two disagree, each with its reason from REASONS. A
disagreement without a reason, or a reason without a disagreement, is an error.
"""

import collections
import pathlib
import resource
import subprocess
import sys
import tempfile

MEMORY = 4 << 30
SECONDS = 60
READ = """
import sys
from gguf import GGUFReader
reader = GGUFReader(sys.argv[1])
for field in reader.fields.values():
    field.contents()
for tensor in reader.tensors:
    tensor.data.sum()
"""

# Codes of refusals, and why gguf-py accepts such files. It reads what is there and leaves the meaning
# to its users.
REASONS = {
    "bad_alignment": "takes any alignment but 0",
    "bad_bool": "takes any byte other than 0 for true",
    "bad_dimension": "takes empty tensors",
    "bad_key": "keys may have any characters",
    "bad_merge": "does not look at the tokenizer",
    "bad_split": "does not look at split keys",
    "bad_tensor_name": "names may have any characters",
    "bad_token_type": "does not look at the tokenizer",
    "bad_value": "does not look at hyper-parameters",
    "bad_vocabulary_size": "does not look at the tokenizer",
    "duplicate_merge": "does not look at the tokenizer",
    "duplicate_token": "does not look at the tokenizer",
    "empty_key": "keys may be empty",
    "empty_tensor_name": "names may be empty",
    "empty_token": "does not look at the tokenizer",
    "key_too_long": "has no limits of its own",
    "misaligned_tensor": "reads tensors wherever they are said to lie",
    "missing_byte_token": "does not look at the tokenizer",
    "missing_key": "does not look at hyper-parameters",
    "missing_tensor": "knows no architecture",
    "split_file": "does not look at split keys",
    "string_too_large": "has no limits of its own",
    "template_limit": "does not render",
    "template_syntax": "does not render",
    "template_too_deep": "does not render",
    "template_too_large": "has no limits of its own",
    "template_unsupported": "does not render",
    "tensor_gap": "reads tensors wherever they are said to lie",
    "tensor_name_too_long": "has no limits of its own",
    "tensor_overlap": "reads tensors wherever they are said to lie",
    "tensor_out_of_range": "wraps the offset: it reads tensors wherever they are said to lie",
    "token_id_out_of_range": "does not look at the tokenizer",
    "trailing_data": "does not look at what follows the tensors",
    "unknown_tensor": "knows no architecture",
    "unknown_token_in_merge": "does not look at the tokenizer",
    "unsupported_architecture": "knows no architecture",
    "unsupported_rope_scaling": "does not look at hyper-parameters",
    "unsupported_tokenizer": "does not look at the tokenizer",
    "unsupported_type": "knows the integer types and types that are not implemented here",
    "vocabulary_mismatch": "does not look at the tokenizer",
    "vocabulary_size": "does not look at the tokenizer",
    "wrong_shape": "knows no architecture",
    "wrong_type": "takes any type",
}
# Files that the loader accepts and gguf-py does not.
STRICTER = {
    "valid_unknown_keys": "decodes all strings as UTF-8; the loader does not read what it does not use",
}
# A million pairs and more, for which gguf-py needs minutes.
TOO_SLOW = ("valid_a_million_keys", "keys_above_the_limit")


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def refusal(path):
    """Why gguf-py refuses the file; empty if it reads it."""
    try:
        done = subprocess.run([sys.executable, "-c", READ, str(path)], preexec_fn=limit_memory,
                              capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"still reading after {SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"signal {-done.returncode}"


def main():
    build = pathlib.Path(sys.argv[1])
    counts = collections.Counter()
    unexplained, unused = [], set(REASONS) | set(STRICTER)
    with tempfile.TemporaryDirectory() as folder:
        report = subprocess.run([build / "bin" / "make_hostile_files", folder], check=True,
                                capture_output=True, text=True).stdout
        print("| file | loader | gguf-py | why |\n| --- | --- | --- | --- |")
        for line in report.splitlines():
            name, code = line.split("\t")[:2]
            if name in TOO_SLOW:
                print(f"| {name} | {code or 'accepted'} | not asked | gguf-py needs minutes |")
                continue
            theirs = refusal(pathlib.Path(folder) / f"{name}.gguf")
            counts[(not code, not theirs)] += 1
            if bool(code) == bool(theirs):
                continue
            key = code or name
            reason = (REASONS if code else STRICTER).get(key)
            unused.discard(key)
            print(f"| {name} | {code or 'accepted'} | {theirs or 'accepted'} | {reason} |")
            if reason is None:
                unexplained.append(name)
    for (ours, theirs), n in sorted(counts.items()):
        print(f"{n} files: loader {'accepts' if ours else 'refuses'}, "
              f"gguf-py {'accepts' if theirs else 'refuses'}")
    if unexplained or unused:
        print(f"without a reason: {unexplained}; reasons never met: {sorted(unused)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
