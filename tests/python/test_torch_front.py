# SPDX-License-Identifier: Apache-2.0
"""attnmux.attention on tensors of PyTorch is attnmux.torch.attention, where the package has it."""

import attnmux
import pytest

torch = pytest.importorskip("torch")
try:
    import attnmux.torch
except (ImportError, attnmux.Error) as error:
    pytest.skip(str(error), allow_module_level=True)


def tensors(**options):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 8, 4, 16, generator=generator, **options) for _ in range(3)]


def test_has_gradients():
    q, k, v = tensors(requires_grad=True)
    out = attnmux.attention(q, k, v, causal=True)
    out.square().sum().backward()
    found = [x.grad.clone() for x in (q, k, v)]
    doubles = [x.detach().double().transpose(1, 2).requires_grad_() for x in (q, k, v)]
    torch.nn.functional.scaled_dot_product_attention(*doubles, is_causal=True).square().sum().backward()
    # Gradients in fp32 against fp64; a wrong or missing one is off by its own size, which is near 1.
    for gradient, expected in zip(found, doubles, strict=True):
        torch.testing.assert_close(gradient.double(), expected.grad.transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_takes_every_argument():
    q, k, v = tensors()
    keep, padding = torch.rand(8, 8) < 0.7, torch.ones(2, 8, dtype=torch.bool)
    lengths, bias = torch.tensor([8, 5], dtype=torch.int32), torch.randn(1, 4, 8, 8)
    options = dict(
        mask=keep, key_padding=padding, key_lengths=lengths, bias=bias, causal="top_left", window=(4, 0, "top_left"),
        scale=0.3, softcap=20.0, dropout=0.25, seed=11, return_lse=True, backend="_native_math",
    )  # fmt: skip
    out, lse = attnmux.attention(q, k, v, **options)
    arrays = {name: x.numpy() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    expected, expected_lse = attnmux.attention(q.numpy(), k.numpy(), v.numpy(), **arrays)
    assert torch.equal(out, torch.from_numpy(expected)) and torch.equal(lse, torch.from_numpy(expected_lse))
    starts = torch.tensor([0, 3, 8], dtype=torch.int32)
    packed = [x[0] for x in (q, k, v)]
    out = attnmux.attention(*packed, varlen=attnmux.Varlen(starts, starts), causal=True)
    varlen = attnmux.Varlen(starts.numpy(), starts.numpy())
    expected = attnmux.attention(*(x.numpy() for x in packed), varlen=varlen, causal=True)
    assert torch.equal(out, torch.from_numpy(expected))


def test_compiles_without_a_graph_break_and_sees_scopes():
    frames = []

    def backend(graph, inputs):
        frames.append(graph)
        return graph.forward

    q, k, v = tensors()
    attnmux.attention(q, k, v)  # loads attnmux.torch
    torch._dynamo.reset()
    compiled = torch.compile(lambda q, k, v: attnmux.attention(q, k, v, scale=0.3) * 2, fullgraph=True, backend=backend)
    counts = []
    for name in ("flash", "_native_math", "flash", "_native_math"):
        with attnmux.attention_backend(name):
            assert torch.equal(compiled(q, k, v), attnmux.attention(q, k, v, scale=0.3) * 2)
        counts.append(len(frames))
    assert counts == [1, 2, 2, 2]


def test_what_the_operators_do_not_take_goes_another_way():
    q, k, v = tensors()
    plain = attnmux.attention(q, k, v, kernel="cpu_math", backend="_native_math")
    assert torch.equal(plain, attnmux.attention(q, k, v, backend="_native_math"))
    q.requires_grad_()
    with pytest.raises(attnmux.InvalidArgumentError, match=r"attnmux\.torch\.attention has one"):
        attnmux.attention(q, k, v, out=torch.empty_like(v))
