#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs every `cpp` and `c` block of the README and the docs, and runs every `sh` block marked `<!-- run -->`.

A comment before a block says where its code stands: nothing, inside a function with the tensors of the guide; `context: toplevel`,
outside of one (it is compiled alone, and blocks marked `after: TEXT` get the toplevel block that contains TEXT); `context: model`, with a
two-layer model named transformer; `context: c`, inside a C function. A block with its own main stands alone.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>cpp|c|sh)\n(?P<code>.*?)```", re.S)

INCLUDES = """#undef NDEBUG
#include <attnmux/attnmux.h>
#include <cassert>
#include <iostream>
#include <string>
#include <thread>
#include <vector>
"""

PRELUDE = """
using attnmux::attention, attnmux::Mask, attnmux::Align;
static std::vector<float> storage(8192, 0.25f), output(8192), lse_storage(128);
static std::vector<unsigned char> keep_storage(16 * 16, 1), padding_storage(2 * 16, 1);
static float *data = storage.data(), *result = output.data();
static attnmux::TensorView q(data, {2, 16, 4, 32}), k(data, {2, 16, 4, 32}), v(data, {2, 16, 4, 32});
static attnmux::MutableTensorView out(result, {2, 16, 4, 32}), lse(lse_storage.data(), {2, 4, 16});
static std::vector<int32_t> lengths{16, 9};
static attnmux::TensorView keep(keep_storage.data(), {16, 16}), padding(padding_storage.data(), {2, 16}), position_bias(data, {1, 1, 16, 16});
static std::string name_from_config = "flash";
static struct { attnmux::AttentionLayer self{"self"}; } layer;
"""

MODEL = """
struct Transformer : attnmux::ModelMixin<Transformer> {
  attnmux::AttentionLayer first{"self"}, second{"cross"};
  void visit_attention_layers(const attnmux::LayerVisitor& visit) { visit("first", first), visit("second", second); }
  void forward() { attention(q, k, v, out, {.layer = &first}), attention(q, k, v, out, {.layer = &second}); }
};
static Transformer transformer;
"""


def source(block, toplevel_blocks):
    """The program for a block, or None where nothing is to be compiled."""
    code, mark = block["code"], block["mark"] or ""
    if block["language"] == "c":
        return "#include <attnmux/attnmux_c.h>\n#include <stdio.h>\nint main(void) {\n" + code + "  return 0;\n}\n"
    if "int main" in code:
        return code
    if mark == "context: toplevel":
        return INCLUDES + PRELUDE + code + "int main() {}\n"
    before = ""
    if mark.startswith("after: "):
        before = next(b for b in toplevel_blocks if mark.removeprefix("after: ") in b)
    if mark == "context: model":
        before = MODEL
    return INCLUDES + PRELUDE + before + "int main() {\n" + code + "}\n"


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", type=pathlib.Path, required=True, help="the project's root")
    parser.add_argument("--library", required=True, help="libattnmux")
    parser.add_argument("--tools", required=True, help="the folder of the executable attnmux")
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--flag", action="append", default=[], help="a further flag for the compiler")
    parser.add_argument("--link", action="append", default=[], help="a library that --library needs")
    arguments = parser.parse_args()

    arguments.source = arguments.source.resolve()
    passed, failures = 0, []
    environment = dict(os.environ, PATH=os.path.abspath(arguments.tools) + os.pathsep + os.environ["PATH"])
    files = [arguments.source / "README.md", *sorted((arguments.source / "docs").glob("*.md")), *sorted((arguments.source / "examples").glob("*/README.md"))]
    with tempfile.TemporaryDirectory() as folder:
        # Commands run where a reader runs them, at the project's root, but what they write lands elsewhere.
        for name in ("include", "examples", "data", "docs"):
            os.symlink(arguments.source / name, pathlib.Path(folder, name))
        for file in files:
            text = file.read_text()
            blocks = [{**m.groupdict(), "line": text[: m.start("code")].count("\n") + 1} for m in BLOCK.finditer(text)]
            toplevel = [b["code"] for b in blocks if b["mark"] == "context: toplevel"]
            for block in blocks:
                where = f"{file.relative_to(arguments.source)}:{block['line']}"
                if block["language"] == "sh":
                    if block["mark"] != "run":
                        continue
                    done = run(["bash", "-euo", "pipefail", "-c", block["code"]], env=environment, cwd=folder)
                else:
                    c = block["language"] == "c"
                    program = pathlib.Path(folder, "snippet.c" if c else "snippet.cpp")
                    code = source(block, toplevel)
                    program.write_text(code)
                    compiler = [arguments.cc, "-std=c11", "-c"] if c else [arguments.cxx, "-std=c++20", "-c"]
                    done = run([*compiler, "-O0", "-Wall", "-I", arguments.source / "include", *arguments.flag, program, "-o", f"{folder}/snippet.o"])
                    if done.returncode == 0:
                        done = run([arguments.cxx, *arguments.flag, f"{folder}/snippet.o", arguments.library, *arguments.link, "-o", f"{folder}/snippet", "-lpthread", "-ldl", "-lrt", f"-Wl,-rpath,{os.path.dirname(arguments.library)}"])
                    if done.returncode == 0:
                        done = run([f"{folder}/snippet"], env=environment)
                if done.returncode == 0:
                    passed += 1
                else:
                    failures.append(where)
                    print(f"{where} failed with {done.returncode}:\n{done.stdout}", file=sys.stderr)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures or passed == 0 else 0


sys.exit(main())
