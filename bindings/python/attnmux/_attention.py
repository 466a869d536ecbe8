# SPDX-License-Identifier: Apache-2.0
"""attention and plan."""

from __future__ import annotations

from typing import Any

from attnmux import _arrays, _core, _options, _torch_layer
from attnmux._backends import backend_name
from attnmux._errors import invalid
from attnmux._scopes import resolve


def attention(
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
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """softmax(mask(scale · q kᵀ) + bias) v, of arrays of NumPy, PyTorch, CuPy, JAX and whatever speaks DLPack.

    q is (B, Sq, Hq, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv); the result is (B, Sq, Hq, Dv), allocated by q's library.
    Nothing is copied or converted. On CUDA the work is queued on the caller's current stream. Tensors of PyTorch go to
    attnmux.torch.attention where the package has it: they get gradients and torch.compile.

    mask         bool or uint8, broadcastable to (B, Hq, Sq, Skv); true: attend
    key_padding  bool or uint8 (B, Skv); true: attend; holes are honoured
    key_lengths  int32 (B): row b attends to the keys 0 … key_lengths[b]-1
    bias         float, broadcastable to (B, Hq, Sq, Skv), added to the scores
    causal       True where there are as many keys as queries; otherwise "top_left" (PyTorch) or "bottom_right"
                 (FlashAttention) says which corner the diagonal starts from
    window       (left, right): keys kept on both sides of the diagonal, -1 is unlimited; an alignment may follow
    scale        default D**-0.5
    softcap      scores become softcap · tanh(score / softcap)
    dropout      probability; needs a seed. The same seed drops the same elements in every kernel
    return_lse   also return the log of the softmax's denominator, float32 (B, Hq, Sq)
    varlen       Varlen(cu_seqlens_q, cu_seqlens_kv): q, k, v are packed sequences (T, H, D)
    backend      a name; None: scope of this thread, then process default. A named backend is never replaced
    allow_lossy  lets the automatic choice take kernels below the 16-bit accuracy class
    kernel       one kernel of the backend by name, for harnesses
    out          where to write the result instead of allocating it
    stream       CUDA: a stream as DLPack counts them (1: legacy default, 2: per-thread default, else a handle); None: the
                 current stream of q's library. Arrays must stay alive until the work on a stream of your own is done
    """
    if _torch_layer.takes(q) and out is None and kernel is None and stream is None and not allow_lossy:
        return _torch_layer.attention(
            q, k, v, mask=mask, key_padding=key_padding, key_lengths=key_lengths, bias=bias, causal=causal,
            window=window, scale=scale, softcap=softcap, dropout=dropout, seed=seed, return_lse=return_lse,
            varlen=varlen, backend=backend,
        )  # fmt: skip
    options = _options_of(mask, key_padding, key_lengths, bias, causal, window, scale, softcap, dropout, seed, varlen,
                          allow_lossy, kernel)  # fmt: skip
    return _run(q, k, v, out, return_lse, options, stream, _core.attention, resolve(backend))


def _options_of(mask, key_padding, key_lengths, bias, causal, window, scale, softcap, dropout, seed, varlen, allow_lossy,
                kernel) -> _options.Options:  # fmt: skip
    """Calls without options share one object: they are the most, and a small problem takes microseconds."""
    if (
        causal is False
        and mask is None
        and key_padding is None
        and key_lengths is None
        and bias is None
        and window is None
        and scale is None
        and softcap is None
        and isinstance(dropout, (int, float))
        and dropout == 0
        and seed is None
        and varlen is None
        and not allow_lossy
        and kernel is None
    ):
        return _options.NO_OPTIONS
    return _options.make(mask, key_padding, key_lengths, bias, causal, window, scale, softcap, dropout, seed, varlen,
                         allow_lossy, kernel)  # fmt: skip


def _run(q, k, v, out, return_lse, options, stream, verb, *backend) -> Any:
    own = out is None
    if own:
        out = _arrays.new_output(q, v)
    else:
        _arrays.refuse_immutable("out", out)
    lse = _arrays.new_lse(q) if return_lse else None
    verb(q, k, v, out, lse, *options, *backend, stream)
    if own:
        out = _arrays.finish(out, q)
    return (out, _arrays.finish(lse, q)) if return_lse else out


class Plan:
    """A choice made once, by plan(). Any number of threads may run it at once, on the planned shape and every smaller
    B, Sq and Skv. A run chooses nothing and asks neither scopes nor the environment."""

    __slots__ = ("_plan", "_scalars", "_given", "_return_lse")

    def __init__(self, q: Any, k: Any, v: Any, options: _options.Options, return_lse: bool, backend: int, stream: Any):
        self._plan = _core.Plan(q, k, v, None, bool(return_lse), *options, backend, stream)
        self._scalars = options.scalars
        self._given = tuple(array is not None for array in options.arrays or (None,) * 6)
        self._return_lse = bool(return_lse)

    @property
    def kernel(self) -> str:
        return self._plan.kernel

    @property
    def backend(self) -> str:
        return backend_name(self._plan.backend)

    @property
    def workspace_bytes(self) -> int:
        return self._plan.workspace_bytes

    def run(
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        mask: Any = None,
        key_padding: Any = None,
        key_lengths: Any = None,
        bias: Any = None,
        cu_seqlens: tuple[Any, Any] | None = None,
        out: Any = None,
        stream: int | None = None,
    ) -> Any:
        """Runs the planned kernel with the planned numbers (causal, scale, …) on these arrays: the same kinds of
        them as were planned. Returns what attention() would return."""
        arrays = (mask, key_padding, key_lengths, bias, *(cu_seqlens or (None, None)))
        if self._given != tuple(array is not None for array in arrays):
            self._refuse(arrays)
        options = _options.Options(self._scalars, arrays if any(self._given) else None)
        return _run(q, k, v, out, self._return_lse, options, stream, self._plan.run)

    def _refuse(self, arrays: tuple[Any, ...]) -> None:
        names = ("mask", "key_padding", "key_lengths", "bias", "cu_seqlens[0]", "cu_seqlens[1]")
        for name, planned, array in zip(names, self._given, arrays, strict=True):
            if planned != (array is not None):
                was = "was made with it" if planned else "was made without it"
                raise invalid(f"{name} is {'missing' if planned else 'given'}, and the plan {was}; make another plan")

    def __repr__(self) -> str:
        return f"attnmux.Plan(backend={self.backend!r}, kernel={self.kernel!r}, workspace_bytes={self.workspace_bytes})"


def plan(
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
) -> Plan:
    """Chooses the kernel for these arguments, which are those of attention(), and computes nothing."""
    options = _options_of(mask, key_padding, key_lengths, bias, causal, window, scale, softcap, dropout, seed, varlen,
                          allow_lossy, kernel)  # fmt: skip
    return Plan(q, k, v, options, return_lse, resolve(backend), stream)
