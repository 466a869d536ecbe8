# SPDX-License-Identifier: Apache-2.0
"""explain: what attention() would choose for a call, and why."""

from __future__ import annotations

import html
import json
from typing import Any

from attnmux import _core, _options
from attnmux._attention import _options_of
from attnmux._scopes import requested_by, resolve


class Explanation:
    """str() and repr() are the library's own text; notebooks show a table; to_dict() is for programs."""

    def __init__(self, text: str, document: dict[str, Any], asked_by: str):
        self._text = f"{text}asked for by: {asked_by}\n"
        self._document = {**document, "asked_by": asked_by}

    @property
    def backend(self) -> str:
        return self._document["backend"]

    @property
    def kernel(self) -> str | None:
        """None: nothing in the backend can run this problem."""
        return self._document["kernel"]

    def to_dict(self) -> dict[str, Any]:
        return self._document

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        d = self._document
        head = f"{d['backend']} → {d['kernel'] or 'no kernel'} on {d['device']}"
        facts = [d["problem"], f"asked for by {d['asked_by']}"]
        if d["kernel"]:
            facts.append(f"accuracy class {d['class']}, workspace {d['workspace_bytes']} bytes")
        elif d["reason"]:
            facts.append(d["reason"])
        rows = "".join(
            f"<tr><td>{html.escape(k['name'])}</td><td>{'yes' if k['runs'] else 'no'}</td>"
            f"<td>{html.escape(k['reason'])}</td></tr>"
            for k in d["kernels"]
        )
        table = f"<table><tr><th>kernel</th><th>runs</th><th>why</th></tr>{rows}</table>" if rows else ""
        return f"<div><b>{html.escape(head)}</b><br>{'<br>'.join(map(html.escape, facts))}{table}</div>"


def explain(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Any = None,
    key_padding: Any = None,
    key_lengths: Any = None,
    bias: Any = None,
    causal: _options.Causal = False,
    window: _options.Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    return_lse: bool = False,
    varlen: _options.Varlen | None = None,
    backend: str | None = None,
    allow_lossy: bool = False,
    kernel: str | None = None,
    stream: int | None = None,
    all: bool = False,
) -> Explanation:
    """What attention() would choose for these arguments, kernel by kernel, computing nothing. `all`: the other backends
    too. A valid problem that nothing can run is an answer, not an error."""
    options = _options_of(mask, key_padding, key_lengths, bias, causal, window, scale, softcap, dropout, seed, varlen,
                          allow_lossy, kernel)  # fmt: skip
    chosen = resolve(backend)

    def ask(flags: int) -> str:
        return _core.explain(q, k, v, None, bool(return_lse), *options, chosen, stream, flags)

    text = ask(_core.EXPLAIN_ALL if all else 0)
    return Explanation(text, json.loads(ask(_core.EXPLAIN_JSON)), requested_by(backend))
