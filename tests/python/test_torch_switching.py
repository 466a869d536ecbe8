# SPDX-License-Identifier: Apache-2.0
"""attnmux under models that know nothing of it: for the process, and for one model."""

import copy
import io
import sys
import threading
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounter

import attnmux
import attnmux.torch
from attnmux.torch import _patch, activate, deactivate, reset_attention_backend, set_attention_backend
from attnmux.torch._layer import running
from torch_state import clean_state  # noqa: F401


class Block(nn.Module):
    """A layer as users write them: it has never heard of attnmux."""

    def __init__(self, dim=16):
        super().__init__()
        self.project = nn.Linear(dim, 3 * dim)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        return x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(Block(), Block())
        self.decoder = nn.ModuleList([Block()])

    def forward(self, x):
        return self.decoder[0](self.encoder(x))


@pytest.fixture
def calls(monkeypatch):
    """The backends of the calls that reach attnmux."""
    seen = []
    real = attnmux.torch._sdpa.with_backend

    def recorded(backend, *arguments):
        seen.append(attnmux._backends.backend_name(backend))
        return real(backend, *arguments)

    monkeypatch.setattr(attnmux.torch._sdpa, "with_backend", recorded)
    return seen


@pytest.fixture
def x():
    return torch.randn(2, 7, 16)


def test_activate_reaches_every_name_and_is_undone(calls, x):
    importer = types.ModuleType("some_model")
    exec("from torch.nn.functional import scaled_dot_product_attention as attend", vars(importer))
    sys.modules["some_model"] = importer
    try:
        original, model = F.scaled_dot_product_attention, Model()
        expected = model(x)
        activate()
        activate()  # once more changes nothing
        late = types.ModuleType("late_model")
        exec("from torch.nn.functional import scaled_dot_product_attention", vars(late))
        sys.modules["late_model"] = late
        torch.testing.assert_close(model(x), expected)
        assert calls == ["native"] * 3
        q = torch.randn(1, 2, 4, 8)
        with attnmux.attention_backend("flash"):
            importer.attend(q, q, q)
        assert calls[3:] == ["flash"]
        assert attnmux.torch.is_active() and not torch.backends.mha.get_fastpath_enabled()
        deactivate()
        deactivate()
        assert F.scaled_dot_product_attention is original is importer.attend is late.scaled_dot_product_attention
        assert torch.equal(model(x), expected) and len(calls) == 4
    finally:
        deactivate()
        sys.modules.pop("some_model")
        sys.modules.pop("late_model", None)


def test_activate_as_context_manager_nests(calls):
    q = torch.randn(1, 2, 4, 8)
    with activate():
        with activate():
            F.scaled_dot_product_attention(q, q, q)
        assert attnmux.torch.is_active()
    assert not attnmux.torch.is_active() and len(calls) == 1


def test_a_later_patch_of_others_is_not_overwritten(monkeypatch):
    activate()
    ours = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda *a, **k: None
    with pytest.raises(attnmux.Error, match="was replaced"):
        deactivate()
    assert attnmux.torch.is_active()
    F.scaled_dot_product_attention = ours
    deactivate()


def test_active_refuses_what_attnmux_cannot_compute():
    nested = torch.nested.nested_tensor([torch.randn(2, 3, 8), torch.randn(2, 4, 8)])
    with activate(), pytest.raises(attnmux.InvalidArgumentError, match="nested"):
        F.scaled_dot_product_attention(nested, nested, nested)


def test_one_model_and_no_other(calls, x):
    model, other = Model(), Model()
    expected, others = model(x), other(x)
    before = {name: dict(vars(m)) for name, m in model.named_modules()}
    keys = list(model.state_dict())
    set_attention_backend(model, "flash")
    torch.testing.assert_close(model(x), expected)
    assert calls == ["flash"] * 3
    assert torch.equal(other(x), others) and len(calls) == 3
    assert list(model.state_dict()) == keys
    with attnmux.attention_backend("_native_math"):  # a layer's own backend comes before the scope
        model(x)
    assert calls[3:] == ["flash"] * 3
    reset_attention_backend(model)
    assert torch.equal(model(x), expected) and len(calls) == 6
    for name, module in model.named_modules():
        assert dict(vars(module)).keys() == before[name].keys()
    assert _patch.installed is False


def test_path_is_a_glob(calls, x):
    model = Model()
    set_attention_backend(model, "flash", path="encoder.*")
    set_attention_backend(model, "xformers", path="encoder.1")
    model(x)
    assert calls == ["flash", "xformers"]
    reset_attention_backend(model, path="encoder.0")
    model(x)
    assert calls[2:] == ["xformers"]
    set_attention_backend(model, "_native_math", path=["decoder", "encoder.0"])
    model(x)
    assert calls[3:] == ["_native_math", "xformers", "_native_math"]
    reset_attention_backend(model)


def test_bad_arguments_change_nothing(x):
    model = Model()
    with pytest.raises(attnmux.InvalidArgumentError) as caught:
        set_attention_backend(model, "flash", path="decoder.*.attn")
    for text in ("decoder.*.attn", "matches no module", "encoder.0", "encoder.1", "decoder.0"):
        assert text in str(caught.value)
    with pytest.raises(attnmux.InvalidArgumentError, match="no module that may call attention"):
        set_attention_backend(model, "flash", path="encoder.*.project")
    with pytest.raises(attnmux.UnknownBackendError, match="flash"):
        set_attention_backend(model, "flahs")
    with pytest.raises(attnmux.UnavailableError, match="flex"):
        set_attention_backend(model, "flex")
    with pytest.raises(attnmux.InvalidArgumentError, match="model is a list"):
        set_attention_backend([model], "flash")
    assert not _patch.installed and "forward" not in vars(model)


def test_gradients_flow(calls, x):
    model = Model()
    expected = torch.autograd.grad(model(x).sin().sum(), list(model.parameters()))
    set_attention_backend(model, "flash")
    got = torch.autograd.grad(model(x).sin().sum(), list(model.parameters()))
    reset_attention_backend(model)
    torch.testing.assert_close(got, expected)
    assert calls == ["flash"] * 3


def test_an_exception_leaves_no_backend_behind():
    model = Model()
    set_attention_backend(model, "flash")
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 7, 3))
    assert running.backend is None
    reset_attention_backend(model)


def test_threads_run_models_with_different_backends(x):
    """Each thread's calls use its model's backend: outputs are bitwise those of that backend alone."""
    backends = ["native", "_native_math", "flash", "xformers"] * 2
    models = [Model() for _ in backends]
    for model, backend in zip(models, backends):
        set_attention_backend(model, backend)
    expected = [model(x) for model in models]
    failures = []

    def run(i):
        for _ in range(20):
            if not torch.equal(models[i](x), expected[i]):
                failures.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(models))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for model in models:
        reset_attention_backend(model)
    assert not failures


def test_copies_keep_the_backend_and_are_independent(calls, x):
    model = Model()
    set_attention_backend(model, "flash")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(twin(x), x)  # its own weights: zeros add nothing
    reset_attention_backend(model)
    calls.clear()
    model(x)
    assert calls == []
    twin(x)
    assert calls == ["flash"] * 3
    reset_attention_backend(twin)


def test_pickling_a_pinned_module_is_refused_when_read(x):
    model = Model()
    set_attention_backend(model, "flash")
    file = io.BytesIO()
    torch.save(model, file)
    reset_attention_backend(model)
    file.seek(0)
    with pytest.raises(AttributeError, match="pinned_by_attnmux"):
        torch.load(file, weights_only=False)


def test_forward_of_the_instance_is_kept(calls, x):
    block = Block()
    inner = block.forward

    def hooked(x):
        return inner(x) * 2

    block.forward = hooked
    expected = block(x)
    set_attention_backend(block, "flash")
    torch.testing.assert_close(block(x), expected)
    assert calls == ["flash"]
    reset_attention_backend(block)
    assert vars(block)["forward"] is hooked


def test_a_forward_that_came_later_is_not_thrown_away():
    block = Block()
    set_attention_backend(block, "flash")
    pinned = block.forward
    block.forward = lambda x: x
    with pytest.raises(attnmux.Error, match="put there after"):
        reset_attention_backend(block)
    block.forward = pinned
    reset_attention_backend(block)


@pytest.mark.parametrize("masked", [False, True])
def test_transformer_encoder_leaves_its_fast_path(calls, x, masked):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    mask = torch.zeros(2, 7, dtype=torch.bool)
    if masked:
        mask[1, 5:] = True
    mask = mask if masked else None
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=mask)
        set_attention_backend(model, "flash")
        got = model(x, src_key_padding_mask=mask)
        assert calls == ["flash"] * 2
        reset_attention_backend(model)
        assert torch.equal(model(x, src_key_padding_mask=mask), expected)
    valid = slice(None) if not masked else ~mask
    torch.testing.assert_close(got[valid], expected[valid], rtol=1e-4, atol=1e-5)  # other kernels all along


def test_multihead_attention(calls, x):
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        expected = attention(x, x, x, need_weights=False)[0]
        set_attention_backend(attention, "flash")
        got = attention(x, x, x, need_weights=False)[0]
    reset_attention_backend(attention)
    assert calls == ["flash"]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["compile the model", "compile in place", "compile the blocks"])
def test_compiled_models_follow(way, x):
    torch.compiler.reset()
    model, counter = Model(), CompileCounter()
    target = model
    if way == "compile the model":
        target = torch.compile(model, backend=counter, fullgraph=True)
    elif way == "compile in place":
        model.compile(backend=counter, fullgraph=True)
    else:
        for block in (*model.encoder, *model.decoder):
            block.compile(backend=counter, fullgraph=True)
    q_expected = target(x)
    first = counter.frame_count
    with torch.no_grad():
        target(x)
    for _ in range(2):
        counts = []
        for backend in ("flash", "_native_math", "flash"):
            set_attention_backend(target, backend)
            torch.testing.assert_close(target(x), q_expected)
            counts.append(counter.frame_count)
        reset_attention_backend(target)
        torch.testing.assert_close(target(x), q_expected)
        counts.append(counter.frame_count)
        if _ == 0:
            after_first = counts
            assert counts[0] > first and counts[1] > counts[0], "a new backend must compile anew"
            assert counts[2] == counts[1], "no compile on return"
        else:
            assert counts == [after_first[-1]] * 4, "no compile for what is known"
    if way != "compile the blocks":
        assert after_first[1] - after_first[0] == 1
    torch.compiler.reset()


def test_compiled_graphs_of_a_model_use_its_backend(x):
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    model = Model()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        compiled(x)
        set_attention_backend(model, "flash", path="decoder.*")
        compiled(x)
    reset_attention_backend(model)
    operator = torch.ops.attnmux.sdpa_inference.default
    counts = [[n.args[-1] for n in g.graph.nodes if n.target is operator] for g in graphs]
    assert counts == [[], [attnmux._backends.backend_id("flash")]]
    torch.compiler.reset()


def test_activate_is_seen_by_compiled_code():
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append("attnmux" in str(graph.code))
        return graph

    compiled = torch.compile(lambda q: F.scaled_dot_product_attention(q, q, q), backend=backend, fullgraph=True)
    q = torch.randn(1, 2, 4, 8)
    compiled(q)
    with activate():
        compiled(q)
        compiled(q)
    compiled(q)
    assert graphs == [False, True]
    torch.compiler.reset()
