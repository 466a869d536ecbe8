# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU: streams, mixed devices, CUDA graphs, CuPy and JAX. Skipped where there is none."""

import threading

import attnmux
import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("PyTorch sees no GPU", allow_module_level=True)
# Arguments that keep a call on the path of plain arrays, whether or not attnmux.torch is there.
PLAIN = {"backend": "_native_math", "kernel": "cuda_math"}


def tensors(dtype=torch.float16, shape=(2, 128, 4, 64), device="cuda"):
    return [torch.randn(shape, device=device).to(dtype) for _ in range(3)]


def expected(q, k, v):
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


# P and out are rounded to fp16, r = eps/2 each: (2 r + r) max|v| (see reference.py), and of these few normal numbers none
# is beyond 5.3; what fp32 adds is a thousandth of that.
BOUND = 8 * torch.finfo(torch.float16).eps


def assert_close(out, reference):
    torch.testing.assert_close(out.double(), reference, rtol=0, atol=BOUND)


def test_current_stream_of_pytorch():
    q, k, v = tensors()
    assert_close(attnmux.attention(q, k, v, **PLAIN), expected(q, k, v))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # tens of ms: a call on another stream would read q too early
        late = q + 1
        out = attnmux.attention(late, k, v, **PLAIN)
        assert not side.query()  # queued behind the sleep, and nobody waited
    side.synchronize()
    assert_close(out, expected(q + 1, k, v))


def test_a_stream_that_is_not_the_current_one_waits_for_the_producer():
    q, k, v = tensors()
    out, side = torch.zeros_like(q), torch.cuda.Stream()
    torch.cuda.synchronize()
    torch.cuda._sleep(50_000_000)
    late = q * 2
    attnmux.attention(late, k, v, out=out, stream=side.cuda_stream, **PLAIN)
    side.synchronize()
    assert_close(out, expected(q * 2, k, v))
    attnmux.attention(q, k, v, out=out, stream=1, **PLAIN)
    torch.cuda.synchronize()
    assert_close(out, expected(q, k, v))


def test_in_a_cuda_graph():
    q, k, v = tensors()
    out = torch.zeros_like(q)
    attnmux.attention(q, k, v, out=out, backend="flash")  # modules are loaded before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attnmux.attention(q, k, v, out=out, backend="flash")
    q.copy_(q * 2)
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert_close(out, expected(q, k, v))


def test_plan_and_explain():
    q, k, v = tensors()
    plan = attnmux.plan(q, k, v, backend="flash", return_lse=True)
    assert plan.kernel.startswith("cuda_flash") and plan.kernel in str(attnmux.explain(q, k, v, backend="flash"))
    out, lse = plan.run(q, k, v)
    assert_close(out, expected(q, k, v))
    assert lse.device == q.device and lse.dtype == torch.float32 and lse.shape == (2, 4, 128)


def test_cupy():
    cupy = pytest.importorskip("cupy")
    q, k, v = (cupy.from_dlpack(x) for x in tensors())
    out, lse = attnmux.attention(q, k, v, return_lse=True)
    assert isinstance(out, cupy.ndarray) and isinstance(lse, cupy.ndarray)
    reference = expected(*(torch.from_dlpack(x) for x in (q, k, v)))
    torch.cuda.synchronize()
    assert_close(torch.from_dlpack(out), reference)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        doubled = q * 2
        out = attnmux.attention(doubled, k, v)
    stream.synchronize()
    assert_close(torch.from_dlpack(out), expected(torch.from_dlpack(q) * 2, *(torch.from_dlpack(x) for x in (k, v))))


def test_jax_on_a_gpu_is_refused_with_a_way_out():
    jax = pytest.importorskip("jax")
    if not any(d.platform == "gpu" for d in jax.devices()):
        pytest.skip("JAX sees no GPU")
    x = jax.numpy.ones((1, 16, 2, 32), jax.numpy.float16)
    with pytest.raises(attnmux.InvalidArgumentError, match="JAX on a GPU"):
        attnmux.attention(x, x, x)
    shared = torch.from_dlpack(x)
    assert attnmux.attention(shared, shared, shared, **PLAIN).eq(1).all()


def test_mixed_devices_are_named():
    q, k, v = tensors()
    with pytest.raises(attnmux.InvalidArgumentError, match="k.*cpu.*cuda|k.*cuda.*cpu"):
        attnmux.attention(q, k.cpu(), v, **PLAIN)
    with pytest.raises(attnmux.InvalidArgumentError, match="key_lengths.*(cpu|cuda)"):
        attnmux.attention(q, k, v, key_lengths=np.array([3, 3], np.int32), **PLAIN)
    with pytest.raises(attnmux.InvalidArgumentError, match="q.*(cpu|cuda)"):
        attnmux.attention(q.cpu(), k, v, **PLAIN)
    with pytest.raises(attnmux.InvalidArgumentError, match="out.*(cpu|cuda)"):
        attnmux.attention(q, k, v, out=torch.empty_like(q, device="cpu"), **PLAIN)


def test_threads_on_streams_of_their_own():
    q, k, v = tensors()
    reference, wrong = expected(q, k, v), []
    torch.cuda.synchronize()

    def work(name):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side), attnmux.attention_backend(name):
            for _ in range(20):
                out = attnmux.attention(q, k, v, out=torch.empty_like(q))
                side.synchronize()
                if (out.double() - reference).abs().max() > BOUND:
                    wrong.append(name)

    workers = [
        threading.Thread(target=work, args=(name,)) for name in ["flash", "_native_math", "native", "xformers"] * 2
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_memory_is_freed():
    q, k, v = tensors()
    attnmux.attention(q, k, v, **PLAIN)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(200):
        attnmux.attention(q, k, v, return_lse=True, **PLAIN)
        with pytest.raises(attnmux.Error):
            attnmux.attention(q, k[:, :3], v, **PLAIN)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before
