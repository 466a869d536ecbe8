# SPDX-License-Identifier: Apache-2.0
"""The rows of a benchmark corpus: reading and checking them, which keys a query attends to, and FLOPs, counted exactly."""
from __future__ import annotations

import csv
import dataclasses
import re

COLUMNS = ["row", "B", "Sq", "Skv", "Hq", "Hkv", "D", "Dv", "dtype", "causal", "window", "key_lengths", "mask"]
OPTIONAL = ["softcap", "dropout", "cache", "packed", "beside"]
DTYPES = ["fp32", "bf16", "fp16", "e4m3"]
ALIGNMENTS = ["top_left", "bottom_right"]
MASKS = ["padding", "dense", "dense_heads", "bias", "bias_heads"]


class CorpusError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Row:
    row: str
    B: int
    Sq: int
    Skv: int
    Hq: int
    Hkv: int
    D: int
    Dv: int
    dtype: str
    causal: str = ""  # "", top_left, bottom_right
    window: tuple | None = None  # (left, right), -1 is unlimited
    window_align: str = ""
    key_lengths: tuple | None = None  # one per batch entry
    mask: str = ""  # "" or one of MASKS
    softcap: float = 0.0
    dropout: float = 0.0
    cache: str = "warm"  # cold: K and V come from memory in every call
    packed: bool = False  # key_lengths are the lengths of B sequences, of queries and keys, in one packed tensor
    beside: str = ""  # the plain row that this one is judged by

    def lengths(self) -> list:
        return list(self.key_lengths or [self.Skv] * self.B)

    def padded_lengths(self) -> list:
        """Keys that the mask `padding` keeps per batch entry: the first half."""
        return [self.Skv // 2] * self.B

    def key_range(self, i: int, length: int) -> tuple:
        """The keys [first, last) that query i may attend to by lengths, causal and window."""
        first, last = 0, length
        if self.causal:
            last = min(last, i + self._delta(self.causal, length) + 1)
        if self.window:
            left, right = self.window
            middle = i + self._delta(self.window_align, length)
            first = max(first, middle - left) if left >= 0 else first
            last = min(last, middle + right + 1) if right >= 0 else last
        return first, max(first, last)

    def _delta(self, align: str, length: int) -> int:
        return length - self.Sq if align == "bottom_right" else 0

    def attended(self, dense: bytes | None = None) -> int:
        """(query, key) pairs that are attended to, over batch and query heads. `dense` is the mask of that kind: one
        byte per pair, of one head (Sq, Skv) or of all (Hq, Sq, Skv)."""
        if self.packed:
            alone = dataclasses.replace(self, B=1, packed=False, key_lengths=None)
            return sum(dataclasses.replace(alone, Sq=n, Skv=n).attended() for n in self.lengths())
        heads = self.Hq if dense is None else len(dense) // max(1, self.Sq * self.Skv)
        pairs = 0
        for length, padded in zip(self.lengths(), self.padded_lengths()):
            limit = padded if self.mask == "padding" else self.Skv
            for i in range(self.Sq):
                first, last = self.key_range(i, length)
                last = min(last, limit)
                if dense is None:
                    pairs += self.Hq * max(0, last - first)
                    continue
                for head in range(heads):
                    start = (head * self.Sq + i) * self.Skv
                    pairs += self.Hq // heads * dense.count(1, start + first, start + max(first, last))
        return pairs

    def flops(self, dense: bytes | None = None) -> int:
        return 2 * (self.D + self.Dv) * self.attended(dense)

    def problem(self) -> dict:
        """The row as results show it: what is not asked for is left out."""
        shown = {c: getattr(self, c) for c in COLUMNS[1:9]}
        if self.causal:
            shown["causal"] = self.causal
        if self.window:
            shown["window"] = ":".join(map(str, self.window)) + (f":{self.window_align}" if self.window_align else "")
        if self.key_lengths:
            shown["key_lengths"] = ":".join(map(str, self.key_lengths))
        for name, default in [("mask", ""), ("softcap", 0.0), ("dropout", 0.0), ("cache", "warm"), ("packed", False), ("beside", "")]:
            if getattr(self, name) != default:
                shown[name] = getattr(self, name)
        return shown


class _Reader:
    """Turns the fields of one line into values; every complaint names file, line, column, value and what is accepted."""

    def __init__(self, file: str, line: int, fields: dict):
        self.file, self.line, self.fields = file, line, fields

    def wrong(self, column: str, accepted: str):
        value = (self.fields.get(column) or "").strip()
        raise CorpusError(f"{self.file}, line {self.line}, column {column}: '{value}'; accepted: {accepted}")

    def text(self, column: str) -> str:
        return (self.fields.get(column) or "").strip()

    def integer(self, column: str, least: int) -> int:
        text = self.text(column)
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
            self.wrong(column, f"an integer of at least {least}")
        return int(text)

    def choice(self, column: str, choices: list, default: str | None = None) -> str:
        text = self.text(column)
        if text == "" and default is not None:
            return default
        if text not in choices:
            self.wrong(column, ("empty, " if default is not None else "") + ", ".join(choices))
        return text

    def number(self, column: str, most: float) -> float:
        text = self.text(column)
        if text == "":
            return 0.0
        if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", text) or not 0 <= float(text) < most:
            self.wrong(column, f"empty or a number in [0, {most:g})")
        return float(text)

    def window(self) -> tuple:
        text = self.text("window")
        if not text:
            return None, ""
        match = re.fullmatch(r"(-1|[0-9]{1,18}):(-1|[0-9]{1,18})(?::(top_left|bottom_right))?", text)
        if not match:
            self.wrong("window", "empty, LEFT:RIGHT, LEFT:RIGHT:top_left or LEFT:RIGHT:bottom_right, where -1 is unlimited")
        return (int(match[1]), int(match[2])), match[3] or ""

    def key_lengths(self, batch: int, seqlen_kv: int) -> tuple | None:
        text = self.text("key_lengths")
        if not text:
            return None
        words = text.split(":")
        fits = len(words) == batch and all(re.fullmatch(r"[0-9]{1,18}", w) and int(w) <= seqlen_kv for w in words)
        if not fits:
            self.wrong("key_lengths", f"empty or B = {batch} lengths of 0 to Skv = {seqlen_kv}, with ':' between them")
        return tuple(map(int, words))


def _read_row(r: _Reader) -> Row:
    name = r.text("row")
    if not name or not name.isprintable():
        r.wrong("row", "a name of printable characters")
    size = {column: r.integer(column, 1) for column in COLUMNS[1:8]}
    if size["Hq"] % size["Hkv"] != 0:
        r.wrong("Hkv", f"a divisor of Hq = {size['Hq']}")
    window, window_align = r.window()
    causal = r.choice("causal", ALIGNMENTS, "")
    lengths = r.key_lengths(size["B"], size["Skv"])
    mask = r.choice("mask", MASKS, "")
    square = size["Sq"] == size["Skv"] and lengths is None
    packed = r.choice("packed", ["yes", "no"], "no") == "yes"
    if packed and (lengths is None or size["Sq"] != size["Skv"] or mask or 0 in lengths):
        r.wrong("packed", "empty, no, or yes with key_lengths above 0, Sq = Skv, and no mask")
    square = square or packed
    if window and not window_align:
        if not causal and not square:
            r.wrong("window", "with Sq other than Skv or with key_lengths an alignment is needed: LEFT:RIGHT:top_left or "
                              "LEFT:RIGHT:bottom_right, or one in column causal")
        window_align = causal  # where only one names an alignment, both use it
    if window_align and causal and window_align != causal:
        r.wrong("window", f"the alignment of column causal, {causal}")
    return Row(row=name, **size, dtype=r.choice("dtype", DTYPES), causal=causal, window=window, window_align=window_align,
               key_lengths=lengths, mask=mask, softcap=r.number("softcap", 1e30), dropout=r.number("dropout", 1),
               cache=r.choice("cache", ["warm", "cold"], "warm"), packed=packed, beside=r.text("beside"))


def read_corpus(file: str) -> list:
    """All rows of the CSV file. A name stands once per dtype; `beside` names another row of the file."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            try:
                table = [(lines.line_num, fields) for fields in lines
                         if any(f.strip() for f in fields) and not fields[0].startswith("#")]
            except csv.Error as error:
                raise CorpusError(f"{file}, line {lines.line_num}: {error}") from None
    except OSError as error:
        raise CorpusError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{file}: not a text file in UTF-8") from None
    if not table:
        raise CorpusError(f"{file}: empty; accepted: a first line with the columns {','.join(COLUMNS)}")
    head_line, head = table[0]
    head = [name.strip() for name in head]
    for name in head:
        if name not in COLUMNS + OPTIONAL:
            raise CorpusError(f"{file}, line {head_line}, column '{name}': unknown; accepted: {','.join(COLUMNS)} and, "
                              f"as one likes, {','.join(OPTIONAL)}")
        if head.count(name) > 1:
            raise CorpusError(f"{file}, line {head_line}, column {name}: given twice; accepted: once")
    missing = [name for name in COLUMNS if name not in head]
    if missing:
        raise CorpusError(f"{file}, line {head_line}: without column {', '.join(missing)}; needed: {','.join(COLUMNS)}")
    rows, where = [], {}
    for line, fields in table[1:]:
        if len(fields) != len(head):
            raise CorpusError(f"{file}, line {line}: {len(fields)} fields; accepted: {len(head)}, one per column")
        reader = _Reader(file, line, dict(zip(head, fields)))
        row = _read_row(reader)
        key = (row.row, row.dtype)
        if key in where:
            reader.wrong("row", f"a name that is new for its dtype; line {where[key].line} has it already")
        where[key] = reader
        rows.append(row)
    if not rows:
        raise CorpusError(f"{file}: no rows; accepted: at least one below the line of column names")
    for row in rows:
        if row.beside and beside(rows, row) in (None, row):
            where[row.row, row.dtype].wrong("beside", "empty or the name of another row of the file")
    return rows


def beside(rows: list, row: Row) -> Row | None:
    """The row that `row` is judged by: of that name, and of its dtype where there are several."""
    named = [other for other in rows if other.row == row.beside]
    return next((other for other in named if other.dtype == row.dtype), named[0] if named else None)
