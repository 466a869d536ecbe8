# SPDX-License-Identifier: Apache-2.0
"""Arrays of all kinds: no copy, nothing kept, and a clear refusal of what does not fit."""

import array
import gc
import sys
import weakref

import attnmux
import ml_dtypes
import numpy as np
import pytest


def tensors(dtype=np.float32, shape=(1, 4, 2, 8)):
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(3)]


class Exported:
    """A producer that knows DLPack only, as CuPy does, and counts what becomes of its capsules."""

    def __init__(self, values, versioned=True):
        self.values, self.versioned, self.asked = values, versioned, []

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    device = property(lambda self: self.values.device)

    def __array_namespace__(self):
        return np

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **arguments):
        if arguments and not self.versioned:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked.append((stream, arguments.get("max_version")))
        self.capsule = self.values.__dlpack__(**arguments)
        return self.capsule


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack_capsules_are_used_once(versioned):
    q, k, v = tensors()
    producer = Exported(q, versioned)
    references = sys.getrefcount(q)
    assert np.array_equal(attnmux.attention(producer, k, v), attnmux.attention(q, k, v))
    assert producer.asked == [(None, (1, 1) if versioned else None)]  # once, on the CPU, without a stream
    assert "used_dltensor" in repr(producer.capsule)
    assert sys.getrefcount(q) == references  # the capsule's deleter ran
    del producer.capsule


def test_nothing_is_kept_of_failing_calls():
    q, k, v = tensors()
    producer = Exported(q)
    attnmux.attention(producer, k, v)  # it keeps its last capsule
    references = [sys.getrefcount(x) for x in (q, k, v)]
    for _ in range(10):
        with pytest.raises(attnmux.InvalidArgumentError):
            attnmux.attention(producer, k, v[:, :2])
        with pytest.raises(attnmux.InvalidArgumentError):
            attnmux.attention(producer, k, v, mask=np.ones((3, 3), np.float32))
    gc.collect()
    assert [sys.getrefcount(x) for x in (q, k, v)] == references
    assert "used_dltensor" in repr(producer.capsule)


def test_arrays_are_freed():
    q, k, v = tensors()
    dying = [weakref.ref(x) for x in (q, k, v)]
    out = attnmux.attention(q, k, v, mask=np.ones((4, 4), bool))
    plan = attnmux.plan(q, k, v)
    del q, k, v
    gc.collect()
    assert [ref() for ref in dying] == [None] * 3 and out.any() and plan.kernel


def test_repeated_calls_do_not_grow():
    resource = pytest.importorskip("resource")
    q, k, v = tensors(shape=(1, 32, 4, 64))
    options = dict(mask=np.ones((32, 32), bool), return_lse=True, backend="flash")
    for _ in range(200):
        attnmux.attention(Exported(q), k, v, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3000):  # a leak of one output would be 96 MiB
        attnmux.attention(Exported(q), k, v, **options)
        with pytest.raises(attnmux.Error):
            attnmux.attention(Exported(q), k[:, :3], v)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_bfloat16_of_ml_dtypes_and_as_bits():
    q, k, v = tensors(ml_dtypes.bfloat16)
    out = attnmux.attention(q, k, v, bias=np.zeros((1, 1, 4, 4), ml_dtypes.bfloat16))
    assert out.dtype == ml_dtypes.bfloat16 and np.isfinite(out.astype(np.float32)).all()
    bits = [attnmux.bfloat16_bits(x.view(np.uint16)) for x in (q, k, v)]
    out_bits = attnmux.attention(*bits)
    assert out_bits.dtype == np.uint16 and np.array_equal(out_bits.view(ml_dtypes.bfloat16), attnmux.attention(q, k, v))
    into = np.zeros_like(out_bits)
    attnmux.attention(*bits, out=attnmux.bfloat16_bits(into))
    assert np.array_equal(into, out_bits)
    with pytest.raises(attnmux.InvalidArgumentError, match=r"q\.dtype is uint16.*bfloat16_bits"):
        attnmux.attention(q.view(np.uint16), k, v)
    with pytest.raises(attnmux.InvalidArgumentError, match="a NumPy array of uint16"):
        attnmux.bfloat16_bits(q.view(np.int16))


def test_memoryviews_and_plain_buffers():
    q, k, v = tensors()
    out = np.empty_like(q)
    lengths = array.array("i", [3])
    attnmux.attention(memoryview(q), memoryview(k), memoryview(v), key_lengths=lengths, out=out)
    assert np.array_equal(out, attnmux.attention(q, k, v, key_lengths=np.array([3], np.int32)))
    with pytest.raises(attnmux.InvalidArgumentError, match="give out="):
        attnmux.attention(memoryview(q), k, v)


def test_broadcast_and_odd_strides_are_read_in_place():
    q, k, v = tensors(shape=(2, 4, 2, 8))
    shared = np.broadcast_to(k[:1], k.shape)  # batch stride 0
    assert np.array_equal(attnmux.attention(q, shared, v), attnmux.attention(q, np.ascontiguousarray(shared), v))
    backwards = v[:, ::-1]
    assert np.array_equal(attnmux.attention(q, k, backwards), attnmux.attention(q, k, backwards.copy()))


def test_jax_arrays():
    jax = pytest.importorskip("jax")
    q, k, v = tensors()
    out, lse = attnmux.attention(*(jax.numpy.asarray(x) for x in (q, k, v)), return_lse=True)
    assert isinstance(out, jax.Array) and isinstance(lse, jax.Array)
    assert np.array_equal(np.asarray(out), attnmux.attention(q, k, v))
    with pytest.raises(attnmux.InvalidArgumentError, match="immutable"):
        attnmux.attention(q, k, v, out=jax.numpy.asarray(q))


def bad_calls():
    q, k, v = tensors()
    frozen = q.copy()
    frozen.flags.writeable = False
    wide = np.zeros((1, 4, 2, 16), np.float32)
    record = np.zeros((1, 4, 2, 8), [("x", "f4"), ("pad", "u2")])["x"]
    yield "q is a list; accepted are arrays", dict(q=[1.0])
    yield "q is a NoneType; accepted are arrays", dict(q=None)
    yield r"q\.dtype is int64; accepted are float32, float16, bfloat16 and float64", dict(q=q.astype(np.int64))
    yield r"q\.dtype is complex64", dict(q=q.astype(np.complex64))
    yield r"q\.dtype is >f4", dict(q=q.astype(">f4"))
    yield r"k\.dtype is fp16, q\.dtype is fp32", dict(k=k.astype(np.float16))
    yield r"q\.strides\[3\] is 2; the last dimension must be contiguous", dict(q=wide[..., ::2])
    yield r"q\.strides\[3\] is 6 bytes; it must be a multiple of the element's 4", dict(q=record)
    yield r"q has shape \(4, 2, 8\) with 3 dimensions; accepted is \(B, Sq, Hq, D\)", dict(q=q[0])
    yield "q has 5 dimensions; accepted are up to 4", dict(q=q[None])
    yield r"v has shape .* extent 1 is 3, it must be 4", dict(v=v[:, :3])
    yield "k is a str; accepted are arrays", dict(k="k")
    yield "out is read-only", dict(out=frozen)
    yield r"out\.dtype is fp64, q\.dtype is fp32", dict(out=np.empty((1, 4, 2, 8)))
    yield "out has shape", dict(out=np.empty((1, 4, 2, 9), np.float32))
    yield "out overlaps q", dict(out=q, q=q)
    yield r"mask\.dtype is float32; accepted are bool and uint8 .*bias", dict(mask=np.zeros((4, 4), np.float32))
    yield "mask.* has shape", dict(mask=np.ones((3, 4), bool))
    yield "mask.* has shape", dict(mask=np.ones((1, 3, 1, 1, 1), bool)[0])
    yield "key_padding.* has shape", dict(key_padding=np.ones((4, 4), bool))
    yield r"key_lengths\.dtype is int64; accepted are int32", dict(key_lengths=np.array([4]))
    yield "key_lengths", dict(key_lengths=np.array([5], np.int32))
    yield r"bias\.dtype is fp64; accepted are fp32, fp16, bf16", dict(bias=np.zeros((4, 4)))
    yield r"bias\.dtype is int32; accepted are float32", dict(bias=np.zeros((4, 4), np.int32))
    yield "bias.* has shape", dict(bias=np.zeros((3, 4), np.float32))
    yield "causal is 'left'; accepted are False, True, 'top_left' and 'bottom_right'", dict(causal="left")
    yield "causal is 1;", dict(causal=1)
    yield "window is 3; accepted are", dict(window=3)
    yield r"window\[0\] is 1.5; accepted is an int from -1", dict(window=(1.5, 0))
    yield r"window\[2\] is 'left'", dict(window=(1, 0, "left"))
    yield "scale is 'big'; accepted is a number", dict(scale="big")
    yield "scale is nan", dict(scale=float("nan"))
    yield "softcap is -1", dict(softcap=-1.0)
    yield r"dropout\.p is 1; accepted is 0 or more and below 1", dict(dropout=1.0, seed=1)
    yield r"dropout\.p is 0\.5; .*needs dropout\.seed", dict(dropout=0.5)
    yield "seed is -1; accepted is an int from 0", dict(dropout=0.5, seed=-1)
    yield "seed is 1.5", dict(dropout=0.5, seed=1.5)
    yield "varlen is a ndarray; accepted is attnmux.Varlen", dict(varlen=np.zeros(3, np.int32))
    yield "varlen has no cu_seqlens_q", dict(varlen=(None, None))
    yield "accepted is \\(T, Hq, D\\), since cu_seqlens are given", dict(varlen=(np.zeros(2, np.int32),) * 2)
    yield "backend is 3.5; accepted is a backend's name", dict(backend=3.5)
    yield 'kernel is "cpu_fast"; attnmux.list_backends', dict(kernel="cpu_fast")
    yield "stream is a str; accepted are None and an int", dict(stream="s")
    yield "stream", dict(stream=1)  # CPU tensors take none


@pytest.mark.parametrize("message, change", list(bad_calls()), ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_named(message, change):
    q, k, v = tensors()
    arguments = {"q": q, "k": k, "v": v, **change}
    with pytest.raises(attnmux.InvalidArgumentError, match=message) as caught:
        attnmux.attention(arguments.pop("q"), arguments.pop("k"), arguments.pop("v"), **arguments)
    assert str(caught.value).startswith("[attention] ")
    assert caught.value.code is attnmux.Code.INVALID_ARGUMENT and isinstance(caught.value, ValueError)


def test_other_errors_have_their_own_classes():
    q, k, v = tensors()
    with pytest.raises(attnmux.UnknownBackendError, match="flash") as unknown:
        attnmux.attention(q, k, v, backend="flsh")
    assert unknown.value.code is attnmux.Code.UNKNOWN_BACKEND
    with pytest.raises(attnmux.UnavailableError, match="sage"):
        attnmux.attention(q, k, v, backend="sage")
    with pytest.raises(attnmux.UnsupportedError, match="does not take fp64"):
        attnmux.attention(*(x.astype(np.float64) for x in (q, k, v)), backend="flash")


def test_errors_travel_between_processes():
    import pickle

    error = attnmux.UnavailableError("[attention] text", attnmux.Code.UNAVAILABLE)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is attnmux.UnavailableError and again.code is error.code and str(again) == str(error)


def test_a_producer_that_fails_is_quoted():
    class Broken(Exported):
        def __dlpack__(self, **arguments):
            raise BufferError("the tensor is lazy")

    q, k, v = tensors()
    with pytest.raises(
        attnmux.InvalidArgumentError, match="q cannot be read through its __dlpack__: the tensor is lazy"
    ):
        attnmux.attention(Broken(q), k, v)

    class Elsewhere(Exported):
        def __dlpack_device__(self):
            return (8, 0)  # Metal

    with pytest.raises(attnmux.InvalidArgumentError):
        attnmux.attention(Elsewhere(q), k.astype(np.float16), v)
