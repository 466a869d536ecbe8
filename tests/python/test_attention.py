# SPDX-License-Identifier: Apache-2.0
"""attnmux.attention on NumPy arrays against fp64."""

import attnmux
import ml_dtypes
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Backends that take fp64 are fewer; the property test says for each dtype who computes.
BACKENDS = {"float64": ["_native_math"], "float32": ["native", "flash", "_native_math"]}


def array(rng, shape, dtype, layout="bshd"):
    """Random numbers in one of the layouts that users have: contiguous, a view of BHSD memory, or with gaps."""
    values = rng.standard_normal(shape).astype(np.float32)
    if layout == "bhsd":
        return np.ascontiguousarray(values.transpose(0, 2, 1, 3)).astype(dtype).transpose(0, 2, 1, 3)
    if layout == "gaps":
        wide = np.full((*shape[:3], shape[3] + 8), np.nan, dtype)
        wide[..., : shape[3]] = values
        return wide[..., : shape[3]]
    return values.astype(dtype)


@st.composite
def problems(draw):
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    heads_kv = draw(st.integers(1, 3))
    batch, rows, keys = draw(st.integers(0, 3)), draw(st.integers(0, 40)), draw(st.integers(0, 70))
    return {
        "dtype": dtype,
        "backend": draw(st.sampled_from(BACKENDS.get(dtype, BACKENDS["float32"]))),
        "shape": (batch, rows, heads_kv * draw(st.integers(1, 3)), heads_kv, keys),
        "head_dim": draw(st.sampled_from([1, 8, 20, 64])),
        "head_dim_v": draw(st.sampled_from([1, 8, 24, 64])),
        "layout": draw(st.sampled_from(["bshd", "bhsd", "gaps"])),
        "mask": draw(st.sampled_from([None, (1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 1, 1), (1, 0, 1, 0), "2d"])),
        "padding": draw(st.booleans()),
        "lengths": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "causal": draw(st.sampled_from([False, "top_left", "bottom_right"])),
        "scale": draw(st.sampled_from([None, 0.3, 1.0])),
        "softcap": draw(st.sampled_from([None, 5.0])),
        "seed": draw(st.integers(0, 2**31)),
    }


@given(problems())
def test_agrees_with_fp64(problem):
    rng = np.random.default_rng(problem["seed"])
    batch, rows, heads, heads_kv, keys = problem["shape"]
    dtype, d, dv = DTYPES[problem["dtype"]], problem["head_dim"], problem["head_dim_v"]
    q = array(rng, (batch, rows, heads, d), dtype, problem["layout"])
    k = array(rng, (batch, keys, heads_kv, d), dtype, problem["layout"])
    v = array(rng, (batch, keys, heads_kv, dv), dtype, problem["layout"])
    full = (batch, heads, rows, keys)
    keep = np.ones(full, bool)
    options = {}
    if problem["mask"] == "2d":
        options["mask"] = rng.random((rows, keys)) < 0.7
        keep = keep & options["mask"]
    elif problem["mask"] is not None:
        shape = tuple(n if varies else 1 for n, varies in zip(full, problem["mask"]))
        options["mask"] = rng.random(shape) < 0.7
        keep = keep & options["mask"]
    if problem["padding"]:
        options["key_padding"] = (rng.random((batch, keys)) < 0.8).astype(np.uint8)
        keep = keep & (options["key_padding"][:, None, None, :] != 0)
    lengths = None
    if problem["lengths"]:
        lengths = options["key_lengths"] = rng.integers(0, keys + 1, batch).astype(np.int32)
        keep = keep & (np.arange(keys) < lengths[:, None, None, None])
    if problem["causal"]:
        options["causal"] = problem["causal"]
        keep = keep & reference.causal(rows, keys, problem["causal"], lengths)
    bias = None
    if problem["bias"]:
        bias = options["bias"] = rng.standard_normal((1, heads, rows, keys)).astype(np.float32)
    options |= {name: problem[name] for name in ("scale", "softcap") if problem[name] is not None}

    out, lse = attnmux.attention(q, k, v, **options, return_lse=True, backend=problem["backend"])

    expected, expected_lse = reference.attention(
        q, k, v, keep=keep, bias=bias, scale=problem["scale"], softcap=problem["softcap"] or 0.0
    )
    assert out.dtype == dtype and out.shape == (batch, rows, heads, dv)
    assert lse.dtype == np.float32 and lse.shape == (batch, heads, rows)
    error = np.abs(out.astype(np.float64) - expected)
    assert error.max(initial=0) <= reference.tolerance(q, k, v, problem["dtype"], problem["scale"], bias)
    # lse is stored as float32; the error of a score bounds that of lse
    inside = np.isfinite(expected_lse)
    assert np.array_equal(np.isneginf(lse), ~inside)
    bound = reference.tolerance(q, k, np.ones_like(v), problem["dtype"], problem["scale"], bias)
    bound = bound + reference.ROUNDOFF["float32"] * np.abs(expected_lse[inside])
    assert np.all(np.abs(lse[inside] - expected_lse[inside]) <= bound)


def small(dtype=np.float32, rows=4, keys=4, heads=2, d=8):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, n, heads, d)).astype(dtype) for n in (rows, keys, keys)]


def test_window_keeps_both_sides():
    q, k, v = small(rows=9, keys=9)
    i, j = np.arange(9)[:, None], np.arange(9)[None, :]
    expected, _ = reference.attention(q, k, v, keep=(j >= i - 2) & (j <= i + 1))
    np.testing.assert_allclose(
        attnmux.attention(q, k, v, window=(2, 1)), expected, atol=reference.tolerance(q, k, v, "float32")
    )
    q = q[:, :5]
    i = np.arange(5)[:, None] + 4
    expected, _ = reference.attention(q, k, v, keep=(j >= i - 2) & (j <= i))
    out = attnmux.attention(q, k, v, window=(2, 0, "bottom_right"))
    np.testing.assert_allclose(out, expected, atol=reference.tolerance(q, k, v, "float32"))


def test_packed_sequences():
    q, k, v = (x.reshape(8, 2, 8) for x in small())
    starts = np.array([0, 3, 3, 8], np.int32)
    out, lse = attnmux.attention(q, k, v, varlen=attnmux.Varlen(starts, starts, 5, 5), causal=True, return_lse=True)
    assert out.shape == (8, 2, 8) and lse.shape == (2, 8)
    for begin, end in [(0, 3), (3, 8)]:
        part = slice(begin, end)
        keep = reference.causal(end - begin, end - begin, "top_left")
        expected, expected_lse = reference.attention(q[None, part], k[None, part], v[None, part], keep=keep)
        bound = reference.tolerance(q[None], k[None], v[None], "float32")
        np.testing.assert_allclose(out[part], expected[0], atol=bound)
        np.testing.assert_allclose(lse[:, part], expected_lse[0], rtol=2e-6, atol=2e-6)


def test_dropout_is_the_seeds():
    q, k, v = small(keys=64)
    once = attnmux.attention(q, k, v, dropout=0.5, seed=7)
    assert np.array_equal(once, attnmux.attention(q, k, v, dropout=0.5, seed=7))
    assert not np.array_equal(once, attnmux.attention(q, k, v, dropout=0.5, seed=8))
    assert np.array_equal(attnmux.attention(q, k, v, dropout=0.0, seed=7), attnmux.attention(q, k, v))


def test_causal_needs_a_corner_where_they_differ():
    q, k, v = small(rows=4, keys=6)
    with pytest.raises(attnmux.InvalidArgumentError, match="top_left and bottom_right differ"):
        attnmux.attention(q, k, v, causal=True)
    assert not np.array_equal(
        attnmux.attention(q, k, v, causal="top_left"), attnmux.attention(q, k, v, causal="bottom_right")
    )


def test_writes_into_out():
    q, k, v = small()
    wide = np.zeros((2, 2, 4, 8), np.float32)
    out = wide.transpose(0, 2, 1, 3)
    assert attnmux.attention(q, k, v, out=out) is out
    assert np.array_equal(out, attnmux.attention(q, k, v)) and out.any()


def test_plan_runs_smaller_problems():
    q, k, v = small(rows=16, keys=32)
    keep = np.random.default_rng(1).random((16, 32)) < 0.5
    plan = attnmux.plan(q, k, v, mask=keep, scale=0.5, return_lse=True, backend="flash")
    assert plan.backend == "flash" and plan.kernel.startswith("cpu_flash") and plan.workspace_bytes >= 0
    assert plan.kernel in repr(plan)
    for rows in (16, 5):
        out, lse = plan.run(q[:, :rows], k, v, mask=keep[:rows])
        expected, expected_lse = attnmux.attention(
            q[:, :rows], k, v, mask=keep[:rows], scale=0.5, return_lse=True, backend="flash"
        )
        assert np.array_equal(out, expected) and np.array_equal(lse, expected_lse)
    with pytest.raises(attnmux.InvalidArgumentError, match="mask is missing, and the plan was made with it"):
        plan.run(q, k, v)
    with pytest.raises(attnmux.InvalidArgumentError, match="bias is given, and the plan was made without it"):
        plan.run(q, k, v, mask=keep, bias=np.zeros((1, 1, 1, 32), np.float32))
    with pytest.raises(attnmux.InvalidArgumentError, match="at most the planned"):
        plan.run(np.concatenate([q, q], 1), k, v, mask=np.concatenate([keep, keep]))


def test_explain_says_the_kernel_and_who_asked():
    q, k, v = small()
    text = attnmux.explain(q, k, v, backend="flash")
    assert text.backend == "flash" and text.kernel in str(text) and repr(text) == str(text)
    assert "asked for by: the call" in str(text)
    assert text.to_dict()["kernels"][0]["name"] in text._repr_html_()
    with attnmux.attention_backend("_native_math"):
        inner = attnmux.explain(q, k, v, all=True)
    assert inner.backend == "_native_math" and "a scope of this thread" in str(inner) and "xformers" in str(inner)
    nothing = attnmux.explain(q, k, v, backend="sage")
    assert nothing.kernel is None and "no kernel" in str(nothing) and "no kernel" in nothing._repr_html_()


def test_the_html_is_escaped():
    document = {"backend": "<b>", "kernel": None, "device": "cpu", "problem": "<p>", "reason": "a < b", "kernels": []}
    made = attnmux.Explanation("text\n", document, "<call>")
    assert "<p>" not in made._repr_html_() and "a &lt; b" in made._repr_html_()


def test_list_backends():
    backends = {b.name: b for b in attnmux.list_backends()}
    assert backends["native"].available and "cpu_math" in backends["_native_math"].kernels
    assert not backends["sage"].available and backends["sage"].reason
    assert [b.id for b in attnmux.list_backends()] == list(range(1, len(backends) + 1))
