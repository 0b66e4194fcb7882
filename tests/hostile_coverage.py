#!/usr/bin/env python3
"""Line and branch coverage of loader/ and core/tokenizer/ by the tests.

    hostile_coverage.py [BUILD_DIR]       (default: build-coverage beside tests/)

Builds the tests of both with GCC's --coverage, runs them, and prints a table. Branches count where
the source has a choice (if, for, while, case, ?, &&, ||), outside of the statements that make an
error: the others are GCC's own, for the cleanup of half-made strings when memory runs out. Fails below
the limits.
"""

import collections
import gzip
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("loader", "core/tokenizer")
TESTS = ("gguf_test", "hostile_test", "hostile_file_test", "hostile_change_test", "hostile_table_test",
         "tokenizer_test", "tokenizer_parts_test",
         "fuzz_parse", "fuzz_load", "fuzz_tokenizer")
MIN_LINES, MIN_BRANCHES = 97.0, 90.0


def run(*command, cwd=None):
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def build(folder):
    # -fno-inline: a function that is inlined everywhere would count as many times.
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_CXX_FLAGS=--coverage -fno-inline -DNDEBUG", "-DCMAKE_CXX_FLAGS_DEBUG=-O0",
        "-DQWEN_CUDA=OFF", "-DQWEN_BUILD_TESTS=ON",
        f"-DCMAKE_CXX_COMPILER_LAUNCHER={os.environ.get('CMAKE_CXX_COMPILER_LAUNCHER', '')}")
    run("ninja", "-C", folder, *TESTS)
    for old in folder.rglob("*.gcda"):
        old.unlink()
    for test in TESTS:
        arguments = ["--mutations", "3000"] if test.startswith("fuzz_") else ["--gtest_brief=1"]
        run(folder / "bin" / test, *arguments)


def choices(name):
    """Numbers of the lines whose branches count."""
    numbers, inside_error = set(), False
    for number, text in enumerate((ROOT / name).read_text().splitlines(), 1):
        inside_error = inside_error or re.match(r"\s*(throw |return Error\()", text) is not None
        if not inside_error and re.search(r"\b(if|for|while|case)\b|[?]|&&|[|][|]", text):
            numbers.add(number)
        inside_error = inside_error and not text.rstrip().endswith(";")
    return numbers


def measure(folder):
    """Per file: for each line the executions, and for each branch whether it was taken."""
    lines = collections.defaultdict(lambda: collections.defaultdict(int))
    branches = collections.defaultdict(lambda: collections.defaultdict(int))
    scratch = folder / "gcov"
    scratch.mkdir(exist_ok=True)
    for data in sorted(folder.rglob("*.gcda")):
        done = subprocess.run(["gcov", "--json-format", "--branch-probabilities", "--stdout",
                               str(data)], cwd=scratch, capture_output=True, check=True)
        text = done.stdout
        if text[:2] == b"\x1f\x8b":
            text = gzip.decompress(text)
        for document in text.decode().splitlines():
            add(json.loads(document), lines, branches)
    return lines, branches


def add(document, lines, branches):
    base = pathlib.Path(document["current_working_directory"])
    for file in document["files"]:
        path = (base / file["file"]).resolve()
        if not path.is_relative_to(ROOT):
            continue
        name = str(path.relative_to(ROOT))
        if not name.startswith(FOLDERS):
            continue
        counted = choices(name)
        for line in file["lines"]:
            lines[name][line["line_number"]] += line["count"]
            for index, branch in enumerate(line["branches"]):
                if not branch["throw"] and line["line_number"] in counted:
                    # The same one in all instantiations of a template.
                    branches[name][(line["line_number"], index)] += branch["count"]


def share(counts):
    taken = sum(1 for count in counts.values() if count)
    return taken, len(counts), 100.0 * taken / len(counts) if counts else 100.0


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build-coverage").resolve()
    build(folder)
    lines, branches = measure(folder)
    good = True
    for part in FOLDERS:
        totals = [0, 0, 0, 0]
        for name in sorted(lines):
            if not name.startswith(part):
                continue
            hit, n, percent = share(lines[name])
            taken, n_branches, branch_percent = share(branches[name])
            missed = [str(number) for number, count in sorted(lines[name].items()) if not count]
            print(f"{name:40} lines {percent:5.1f} %  branches {branch_percent:5.1f} %  "
                  f"{'missed ' + ','.join(missed) if missed else ''}")
            totals = [a + b for a, b in zip(totals, (hit, n, taken, n_branches))]
        line_percent = 100.0 * totals[0] / totals[1]
        branch_percent = 100.0 * totals[2] / totals[3]
        print(f"{part}: lines {line_percent:.1f} % of {totals[1]} (at least {MIN_LINES}), "
              f"branches {branch_percent:.1f} % of {totals[3]} (at least {MIN_BRANCHES})")
        good = good and line_percent >= MIN_LINES and branch_percent >= MIN_BRANCHES
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
