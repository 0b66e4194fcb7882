"""Plants each violation that style_check.py knows into a small tree and looks that it is found, and nothing else."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CHECK = Path(__file__).with_name("style_check.py")
sys.path.insert(0, str(CHECK.parent))
import style_check  # noqa: E402

CLEAN = {
    ".clang-format": "BasedOnStyle: Google\n",
    "core/ops.h": "#pragma once\n\n#include <string>\n\nint f();\n",
    "core/ops.cpp": '#include "core/ops.h"\n\nint f() { return 1; }\n',
    "core/error.h": "#pragma once\n",
    "core/README.md": "Nothing here knows CUDA.\n",
    "core/models/qwen2.cpp": 'const char* kName = "blk.0.attn_q.weight";\n',
    "core/tokenizer/bpe.cpp": '#include "core/error.h"\n',
    "loader/gguf.cpp": '#include "core/ops.h"\n// "blk.0.attn_q.weight" in a comment\n',
    "backends/registry.cpp": '#include "core/ops.h"\n#if QWEN_CUDA\n#endif\n',
    "tools/qwen/main.cpp": '#include "loader/gguf.h"\nint main() { return \'"\'; }\n',
    "tests/op_test.cpp": '#include "core/ops.h"\nconst char* kName = "blk.1.ffn_up.weight";\n',
}


class StyleCheckTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for path, text in CLEAN.items():
            self.write(path, text)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def findings(self, formatter=None):
        return list(style_check.findings(self.root, formatter))

    def expect(self, path, line, message):
        found = self.findings()
        self.assertEqual([(f[0], f[1]) for f in found], [(path, line)], found)
        self.assertIn(message, found[0][2])

    def test_a_clean_tree_has_no_findings(self):
        self.assertEqual(self.findings(), [])

    def test_cuda_in_core(self):
        self.write("core/ops.cpp", "int f();\n// as Cuda does\n")
        self.expect("core/ops.cpp", 2, "CUDA")

    def test_cuda_in_the_build_of_core(self):
        self.write("core/CMakeLists.txt", "if(QWEN_CUDA)\nendif()\n")
        self.expect("core/CMakeLists.txt", 1, "CUDA")

    def test_cuda_in_the_readme_of_core_and_elsewhere_is_fine(self):
        self.write("backends/gpu.cpp", "// cuda\n")
        self.assertEqual(self.findings(), [])

    def test_a_build_option_outside_the_registry(self):
        for condition in ("#if QWEN_CUDA", "#ifdef QWEN_CUDA", "#  ifndef QWEN_X", "#if defined(QWEN_X)",
                          "#elif QWEN_CUDA"):
            with self.subTest(condition):
                self.write("tools/qwen/main.cpp", f"int a;\n{condition}\n#endif\n")
                self.expect("tools/qwen/main.cpp", 2, "build option")

    def test_a_second_condition_in_the_registry(self):
        self.write("backends/registry.cpp", "#if QWEN_CUDA\n#endif\n#if QWEN_CUDA\n#endif\n")
        self.expect("backends/registry.cpp", 3, "second")

    def test_a_long_file(self):
        self.write("loader/gguf.cpp", "int a;\n" * 500)
        self.assertEqual(self.findings(), [])
        self.write("loader/gguf.cpp", "int a;\n" * 501)
        self.expect("loader/gguf.cpp", 501, "501 lines")

    def test_a_function_like_macro(self):
        self.write("core/ops.cpp", "#define SQUARE(x) ((x) * (x))\n")
        self.expect("core/ops.cpp", 1, "macro")

    def test_a_constant_macro_is_fine(self):
        self.write("core/ops.cpp", "#define _GNU_SOURCE\n#define ANSWER (42)\n")
        self.assertEqual(self.findings(), [])

    def test_unfinished_work(self):
        for word in ("TO" "DO", "FIX" "ME", "X" "XX"):
            for path in ("loader/gguf.cpp", "tools/lib/build.sh", "tests/CMakeLists.txt"):
                with self.subTest(word=word, path=path):
                    self.write(path, f"\n// # {word}: later\n")
                    self.expect(path, 2, "unfinished")
                    (self.root / path).unlink()

    def test_unfinished_work_in_a_script_without_suffix(self):
        self.write("tools/run", "#!/usr/bin/env bash\n# TO" "DO\n")
        self.expect("tools/run", 2, "unfinished")

    def test_includes_against_the_dependency_rule(self):
        for path, included in (("core/ops.cpp", "loader/gguf.h"), ("core/ops.cpp", "backends/registry.h"),
                               ("core/ops.cpp", "tools/qwen/cli.h"), ("core/models/qwen2.cpp", "loader/gguf.h"),
                               ("core/tokenizer/bpe.cpp", "core/ops.h"),
                               ("core/chat_template/value.cpp", "core/tokenizer/bpe.h"),
                               ("loader/gguf.cpp", "backends/registry.h"), ("loader/gguf.cpp", "tests/a.h"),
                               ("backends/cpu/cpu.cpp", "loader/gguf.h"),
                               ("backends/cpu/cpu.cpp", "tools/qwen/cli.h")):
            for quoted in (f'"{included}"', f"<{included}>"):
                with self.subTest(path=path, included=quoted):
                    self.write(path, f"\n#include {quoted}\n")
                    self.expect(path, 2, "may include only")
                    self.write(path, CLEAN.get(path, ""))

    def test_an_include_relative_to_the_file(self):
        self.write("core/ops.cpp", '#include "ops.h"\n#include "../loader/gguf.h"\n')
        self.write("loader/gguf.h", "#pragma once\n")
        self.assertEqual([f[1] for f in self.findings()], [1, 2])

    def test_a_tensor_name_outside_the_model(self):
        for text in ('"blk.0.attn_q.weight"', '"blk." + layer', '"attn_q.weight"', '"token_embd.weight"',
                     '"output_norm.weight"', '"output.weight"', '".ffn_down.weight"', '"attn_k.bias"'):
            with self.subTest(text):
                self.write("core/session.cpp", f"auto name = {text};\n")
                self.expect("core/session.cpp", 1, "tensor name")

    def test_a_tensor_name_in_inspect_is_fine(self):
        self.write("tools/qwen/inspect.cpp", 'auto name = "blk.0.attn_q.weight";\n')
        self.assertEqual(self.findings(), [])

    def test_a_header_without_pragma_once(self):
        self.write("core/ops.h", "// #pragma once\nint f();\n")
        self.expect("core/ops.h", 1, "#pragma once")

    def test_formatting(self):
        formatter = style_check.clang_format()
        if formatter is None:
            self.skipTest("clang-format 14 is not installed")
        self.assertEqual(self.findings(formatter), [])
        self.write("core/ops.cpp", "int f();\n\nint  g( );\nint  h( );\n")
        found = self.findings(formatter)
        self.assertEqual([(f[0], f[1]) for f in found], [("core/ops.cpp", 3)], found)
        self.assertIn("clang-formatted", found[0][2])

    def test_the_program_prints_findings_and_fails(self):
        done = subprocess.run([sys.executable, "-B", CHECK, self.root], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.write("core/ops.h", "int f();\n")
        done = subprocess.run([sys.executable, "-B", CHECK, self.root], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("core/ops.h:1: no #pragma once\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
