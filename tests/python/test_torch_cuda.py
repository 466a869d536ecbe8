# SPDX-License-Identifier: Apache-2.0
"""attnmux.torch on a GPU: forward and backward, streams, CUDA graphs, compile, threads. Skipped where there is none."""

import threading

import attnmux
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("PyTorch sees no GPU", allow_module_level=True)
import attnmux.torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from attnmux.torch import _flash_backward, attention  # noqa: E402
from attnmux.torch import scaled_dot_product_attention as sdpa  # noqa: E402
from torch_state import clean_state  # noqa: E402, F401

HALF, BRAIN = torch.float16, torch.bfloat16
BACKENDS = ["native", "flash", "_native_math"]
if torch.cuda.get_device_capability() == (9, 0):
    BACKENDS.append("_flash_3")


def rows(*shape, dtype=HALF, **options):
    return torch.randn(*shape, device="cuda", dtype=dtype, **options)


def exact(q, k, v, mask=None, **options):
    mask = mask if mask is None or mask.dtype == torch.bool else mask.double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask, **options)


def error(a, b):
    return (a.double() - b).abs().max().item()


@pytest.mark.parametrize("dtype", [HALF, BRAIN, torch.float32, torch.float64])
def test_forward(dtype):
    q, k, v = rows(2, 4, 100, 64, dtype=dtype), rows(2, 2, 130, 64, dtype=dtype), rows(2, 2, 130, 64, dtype=dtype)
    padding, bias = torch.rand(2, 1, 1, 130, device="cuda") > 0.3, rows(100, 130, dtype=torch.float32)
    for mask, causal in ((None, False), (None, True), (padding, False), (bias, False)):
        reference = exact(q, k, v, mask, is_causal=causal, enable_gqa=True)
        out = sdpa(q, k, v, mask, is_causal=causal, enable_gqa=True)
        theirs = mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
        plain = F.scaled_dot_product_attention(q, k, v, theirs, is_causal=causal, enable_gqa=True)
        # docs/numerics.md, with PyTorch's kernel as the textbook loop. fp64's is the reference itself, and has no error.
        eps = torch.finfo(dtype).eps
        floor = 2 * eps * (130 + 1) * reference.abs().max() if dtype.itemsize >= 4 else 4 * eps * reference.abs().max()
        assert error(out, reference) <= 2 * error(plain, reference) + floor


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_in_operations(backend):
    q, k, v = (rows(2, 4, s, 64, requires_grad=True) for s in (100, 130, 130))
    weight = rows(2, 4, 100, 64)
    with attnmux.attention_backend(backend):
        got = torch.autograd.grad(sdpa(q, k, v, is_causal=True), (q, k, v), weight)
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(exact(*wide, is_causal=True), wide, weight.double())
    for a, b in zip(got, expected, strict=True):  # computed in fp32 and rounded once
        assert error(a, b) <= torch.finfo(HALF).eps * b.abs().max()


@pytest.mark.parametrize("dtype, head_dim, causal", [(HALF, 64, True), (BRAIN, 128, False), (HALF, 256, True), (HALF, 40, False)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_by_flash(backend, dtype, head_dim, causal, monkeypatch):
    if backend == "_flash_3" and head_dim != 128:
        return
    lengths = (130, 130, 130) if causal else (100, 200, 200)
    q, k, v = (rows(2, 4, s, head_dim, dtype=dtype, requires_grad=True) for s in lengths)
    weight = rows(2, 4, lengths[0], head_dim, dtype=dtype)
    taken = []
    real = _flash_backward.backward
    monkeypatch.setattr(_flash_backward, "backward", lambda *a: taken.append(1) or real(*a))
    with attnmux.attention_backend(backend):
        got = torch.autograd.grad(sdpa(q, k, v, is_causal=causal), (q, k, v), weight)
    assert taken
    theirs = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, is_causal=causal), (q, k, v), weight)
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(exact(*wide, is_causal=causal), wide, weight.double())
    for a, b, plain in zip(got, expected, theirs, strict=True):
        assert error(a, b) <= 2 * error(plain, b) + torch.finfo(dtype).eps * b.abs().max()


def test_dropout_is_that_of_the_cpu():
    inputs = [rows(2, 20, 2, 16, dtype=torch.float32, requires_grad=True) for _ in range(3)]
    bias = rows(20, 20, dtype=torch.float32, requires_grad=True)

    def gradients(*tensors):
        out = attention(*tensors[:3], bias=tensors[3], dropout=0.3, seed=9)
        return torch.autograd.grad(out.sin().sum(), tensors)

    on_cpu = [t.detach().cpu().requires_grad_() for t in (*inputs, bias)]
    for a, b in zip(gradients(*inputs, bias), gradients(*on_cpu), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)  # fp32; another dropped element is off by 1/(1-p)


def test_current_stream():
    side, source = torch.cuda.Stream(), rows(4, 8, 512, 64)
    expected = sdpa(source, source, source)
    q = torch.zeros_like(source)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # a call on another stream would read zeros
        q.copy_(source)
        out = sdpa(q, q, q)
        assert not side.query()  # queued, and nobody waited
    side.synchronize()
    assert torch.equal(out, expected)


def capture(function):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function()
    return graph, out


@pytest.mark.parametrize("backend", BACKENDS)
def test_cuda_graph(backend):
    q, k, v = (rows(2, 4, 256, 64) for _ in range(3))
    with attnmux.attention_backend(backend):
        graph, out = capture(lambda: sdpa(q, k, v))
        q.copy_(rows(2, 4, 256, 64))
        graph.replay()
        assert torch.equal(out, sdpa(q, k, v))


@pytest.mark.parametrize("lengths", [(128, 128), (128, 96)])  # PyTorch's backward, and ours
def test_cuda_graph_of_a_training_step(lengths):
    q, k, v = (rows(2, 4, s, 64, requires_grad=True) for s in (lengths[0], lengths[1], lengths[1]))
    weight = rows(2, 4, lengths[0], 64)
    graph, grads = capture(lambda: torch.autograd.grad(sdpa(q, k, v, is_causal=True), (q, k, v), weight))
    with torch.no_grad():
        q.copy_(rows(*q.shape))
    graph.replay()
    expected = torch.autograd.grad(sdpa(q, k, v, is_causal=True), (q, k, v), weight)
    for a, b in zip(grads, expected, strict=True):  # PyTorch's backward adds up dq in any order
        torch.testing.assert_close(a, b, rtol=0, atol=4 * torch.finfo(HALF).eps * b.abs().max().item())


def test_dropout_in_a_cuda_graph_is_refused():
    q = rows(1, 2, 16, 64)
    torch.cuda.synchronize()
    with pytest.raises(attnmux.UnsupportedError, match="every replay"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        sdpa(q, q, q, dropout_p=0.5)


def test_compile_counts():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter, counts = CompileCounterWithBackend("aot_eager"), []
    compiled = torch.compile(lambda q, k, v: sdpa(q, k, v, is_causal=True), backend=counter, fullgraph=True)
    q, k, v = (rows(2, 4, 64, 64, requires_grad=True) for _ in range(3))
    for backend in ("native", "flash", "_native_math", "flash", "native"):
        with attnmux.attention_backend(backend):
            out = compiled(q, k, v)
            assert torch.equal(out, sdpa(q, k, v, is_causal=True))
            out.sum().backward()
        counts.append(counter.frame_count)
    assert counts == [1, 2, 3, 3, 3]
    torch.compiler.reset()


def test_inductor_with_cuda_graphs():
    torch.compiler.reset()
    linear = torch.nn.Linear(64, 192, device="cuda", dtype=HALF)

    def function(x):
        q, k, v = (t.unflatten(-1, (2, 32)).transpose(1, 2) for t in linear(x).chunk(3, -1))
        return sdpa(q, k, v).transpose(1, 2).flatten(2) + x

    x = rows(2, 64, 64)
    compiled = torch.compile(function, fullgraph=True, mode="reduce-overhead")
    with torch.no_grad():
        for _ in range(4):
            out = compiled(x).clone()
        torch.testing.assert_close(out, function(x), rtol=0, atol=5e-3)  # inductor rounds at other places
    torch.compiler.reset()


def test_threads_with_own_streams_and_backends():
    failures = []

    def run(backend):
        with torch.cuda.stream(torch.cuda.Stream()), attnmux.attention_backend(backend):
            q = rows(2, 4, 200, 64)
            expected = sdpa(q, q, q)
            if not all(torch.equal(sdpa(q, q, q), expected) for _ in range(30)):
                failures.append(backend)

    threads = [threading.Thread(target=run, args=(b,)) for b in BACKENDS * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_memory_is_freed():
    q, k, v = (rows(2, 4, 128, 64, requires_grad=True) for _ in range(3))

    def work():
        torch.autograd.grad(sdpa(q, k, v).sum(), (q, k, v))
        with torch.no_grad():
            sdpa(q, k, v, torch.ones(128, 128, dtype=torch.bool, device="cuda"))
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    before = max(work() for _ in range(5))  # PyTorch frees some of its own along the way
    assert max(work() for _ in range(10)) <= before


def test_models_and_activate(monkeypatch):
    seen, real = [], attnmux.torch._sdpa.with_backend
    monkeypatch.setattr(attnmux.torch._sdpa, "with_backend", lambda *a: seen.append(a[0]) or real(*a))
    layer = torch.nn.TransformerEncoderLayer(64, 4, 64, batch_first=True, device="cuda", dtype=HALF)
    model, x = torch.nn.TransformerEncoder(layer, 2).eval(), rows(2, 40, 64)
    with torch.no_grad():
        expected = model(x)
        attnmux.torch.set_attention_backend(model, "flash")
        got = model(x)
        attnmux.torch.reset_attention_backend(model)
        assert torch.equal(model(x), expected) and len(seen) == 2
        with attnmux.torch.activate():
            active = model(x)
    assert len(seen) == 4
    for out in (got, active):
        torch.testing.assert_close(out, expected, rtol=0, atol=16 * torch.finfo(HALF).eps)  # other kernels in every layer


def test_mixed_devices_and_autocast():
    q = rows(1, 2, 8, 64, dtype=torch.float32)
    with pytest.raises(attnmux.InvalidArgumentError, match="key is on cpu"):
        sdpa(q, q.cpu(), q)
    with torch.autocast("cuda", dtype=BRAIN):
        out, theirs = sdpa(q, q, q), F.scaled_dot_product_attention(q, q, q)
    assert out.dtype == theirs.dtype == BRAIN
    torch.testing.assert_close(out, theirs, rtol=0, atol=2e-2)
