"""The rules of the project that a program can check.

style_check.py [--require-format] [ROOT]

Prints each finding as file:line: message; exit code 1 if there is one. The formatting is checked with clang-format 14,
since every version formats differently; without it that check is left out and said so, or with --require-format fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDERS = ("core", "loader", "backends", "tools", "tests", "cmake", ".ci")
SKIPPED_FOLDERS = {"__pycache__"}
CXX = {".h", ".cpp", ".cu", ".cuh"}
HEADERS = {".h", ".cuh"}
SCRIPTS = {".py", ".sh", ".cmake"}
MAX_LINES = 500

# What the files of a folder may include of ours; the longest folder that matches counts.
MAY_INCLUDE = {
    "core/tokenizer": ("core/tokenizer/", "core/error.h", "core/keyed_hash.h"),
    "core/chat_template": ("core/chat_template/", "core/error.h"),
    "core": ("core/",),
    "loader": ("loader/", "core/"),
    "backends": ("backends/", "core/"),
}

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
OPTION_CONDITION = re.compile(r"^\s*#\s*(?:el)?if(?:def|ndef)?\b.*\bQWEN_")
FUNCTION_MACRO = re.compile(r"^\s*#\s*define\s+\w+\(")
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
# The end of a GGUF tensor name, or the beginning of a layer's, inside a string literal.
TENSOR_NAME = re.compile(
    r'"[^"]*(?:\bblk\.|\b(?:token_embd|output|output_norm|(?:attn|ffn)_\w+)\.(?:weight|bias)\b)')
# A string or character literal (kept), or a comment.
COMMENT = re.compile(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])')|//[^\n]*|/\*.*?\*/""", re.DOTALL)


def without_comments(text):
    """`text` with comments blanked and every line kept in its place."""
    def blank(match):
        return match.group(1) or "\n" * match.group(0).count("\n")
    return COMMENT.sub(blank, text)


def is_in(path, folder):
    return path.startswith(folder + "/")


def source_files(root):
    """The paths of our sources and scripts, relative to root, with slashes."""
    for folder in FOLDERS:
        for where, folders, names in os.walk(root / folder):
            folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
            for name in sorted(names):
                file = Path(where) / name
                if is_source(file):
                    yield file.relative_to(root).as_posix()


def is_source(file):
    if file.suffix in CXX | SCRIPTS or file.name == "CMakeLists.txt":
        return True
    if file.suffix or file.is_symlink():
        return False
    with open(file, "rb") as opened:
        return opened.read(2) == b"#!"


def check_text(path, lines):
    """Rules for every source and script."""
    if len(lines) > MAX_LINES:
        yield MAX_LINES + 1, f"{len(lines)} lines; {MAX_LINES} are the most"
    for number, line in enumerate(lines, 1):
        if UNFINISHED.search(line):
            yield number, "unfinished work: do it, or file an issue"
        if is_in(path, "core") and "cuda" in line.lower():
            yield number, "core knows nothing of CUDA"


def check_cxx(path, lines, root):
    """Rules for C++ and CUDA sources, on the text without comments."""
    may_include = next((MAY_INCLUDE[folder] for folder in sorted(MAY_INCLUDE, key=len, reverse=True)
                        if is_in(path, folder)), None)
    knows_names = (is_in(path, "core/models") or is_in(path, "tests")
                   or is_in(path, "tools") and "inspect" in path)
    conditions = 0
    for number, line in enumerate(lines, 1):
        if FUNCTION_MACRO.match(line):
            yield number, "a function-like macro: write a function"
        if OPTION_CONDITION.match(line):
            conditions += 1
            if path != "backends/registry.cpp":
                yield number, "a build option outside backends/registry.cpp"
            elif conditions > 1:
                yield number, "a second condition on a build option"
        if not knows_names and not INCLUDE.match(line) and TENSOR_NAME.search(line):
            yield number, "a GGUF tensor name outside core/models"
        include = INCLUDE.match(line)
        if include:
            yield from ((number, message) for message in
                        check_include(path, include.group(1), may_include, root))


def check_include(path, included, may_include, root):
    if not (root / included).is_file() and (root / path).parent.joinpath(included).is_file():
        yield f'#include "{included}": give the path from the root of the repository'
    ours = included.split("/")[0] in FOLDERS and "/" in included
    if ours and may_include is not None and not included.startswith(may_include):
        yield f'#include "{included}": may include only {", ".join(may_include)}'


def clang_format():
    """The path of clang-format 14, or None."""
    for name in ("clang-format-14", "clang-format"):
        program = shutil.which(name)
        if program:
            version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            if re.search(r"version 14\.", version):
                return program
    return None


def check_format(program, root, paths):
    """One finding per file: its first unformatted line."""
    done = subprocess.run([program, "--dry-run", "-Werror", "--style=file", *paths], cwd=root,
                          capture_output=True, text=True)
    seen = set()
    for path, number, message in re.findall(r"^([^:\n]+):(\d+):\d+: error: (.*)", done.stderr,
                                            re.MULTILINE):
        if path not in seen:
            seen.add(path)
            yield path, int(number), f"{message.split(' [')[0]} (tools/lint --fix)"
    if done.returncode != 0 and not seen:
        yield ".clang-format", 1, f"clang-format failed: {done.stderr.strip()}"


def findings(root, formatter):
    """(path, line, message) of every violation under root; `formatter` may be None."""
    cxx = []
    for path in source_files(root):
        text = (root / path).read_text(encoding="utf-8", errors="replace")
        for number, message in check_text(path, text.splitlines()):
            yield path, number, message
        suffix = Path(path).suffix
        if suffix not in CXX:
            continue
        cxx.append(path)
        lines = without_comments(text).splitlines()
        for number, message in check_cxx(path, lines, root):
            yield path, number, message
        if suffix in HEADERS and not any(line.strip() == "#pragma once" for line in lines):
            yield path, 1, "no #pragma once"
    if formatter and cxx:
        yield from check_format(formatter, root, cxx)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--require-format", action="store_true",
                        help="fail if clang-format 14 is not installed")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    options = parser.parse_args()
    formatter = clang_format()
    found = sorted(set(findings(options.root, formatter)))
    for path, number, message in found:
        print(f"{path}:{number}: {message}")
    if formatter is None:
        print("style_check: formatting was not checked: clang-format 14 is not installed")
    print(f"style_check: {len(found)} findings")
    return 1 if found or (formatter is None and options.require_format) else 0


if __name__ == "__main__":
    sys.exit(main())
