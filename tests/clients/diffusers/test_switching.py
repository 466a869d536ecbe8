# SPDX-License-Identifier: Apache-2.0
"""Who decides the backend, and for how long: the setter, the context, threads, install and uninstall."""

from __future__ import annotations

import threading

import pytest
import torch
from diffusers import attention_backend
from diffusers.models import attention_dispatch
from tiny_pipelines import qwen_inputs, qwen_transformer

import attnmux
import attnmux.diffusers


def active() -> str:
    return attention_dispatch._AttentionBackendRegistry.get_active_backend()[0].value


@pytest.fixture
def calls(monkeypatch):
    """The backends of all calls that reach attnmux, in order."""
    seen = []
    inner = attnmux.torch.attention

    def attention(*tensors, backend=None, **arguments):
        seen.append(attnmux._backends.NAMES[backend])
        return inner(*tensors, backend=backend, **arguments)

    monkeypatch.setattr(attnmux.torch, "attention", attention)
    return seen


def run(model):
    with torch.no_grad():
        return model(**qwen_inputs(model))[0]


def test_the_setter_changes_its_model_and_nothing_else(calls):
    model, other = qwen_transformer(), qwen_transformer()
    model.set_attention_backend("flash")
    assert active() == "native"
    run(model), run(other)
    assert calls == ["flash"] * 2 + ["native"] * 2
    model.reset_attention_backend()
    calls.clear()
    run(model)
    assert calls == ["native"] * 2


def test_contexts_nest_and_end_also_by_an_exception(calls):
    model = qwen_transformer()
    with attention_backend("flash"):
        with pytest.raises(KeyError), attention_backend("_native_math"):
            run(model)
            raise KeyError
        run(model)
    run(model)
    assert calls == ["_native_math"] * 2 + ["flash"] * 2 + ["native"] * 2


def test_a_context_is_seen_by_its_own_thread_only():
    inside, seen = threading.Barrier(2), {}

    def work(name):
        with attention_backend(name):
            inside.wait()
            seen[name] = active()
            inside.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("flash", "_native_math")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"flash": "flash", "_native_math": "_native_math"} and active() == "native"


def test_the_scope_of_attnmux_counts_too(calls):
    model = qwen_transformer()
    with attnmux.attention_backend("flash"):
        run(model)
        with attention_backend("_native_math"):
            run(model)
    assert calls == ["flash"] * 2 + ["_native_math"] * 2


@pytest.mark.parametrize("name", ["_flash_3", "_native_npu"])
def test_a_name_that_cannot_run_here_stops_at_once_and_says_what_can(name):
    model = qwen_transformer()
    with pytest.raises(attnmux.UnavailableError, match=rf'"{name}" cannot run here.*use "'):
        model.set_attention_backend(name)
    with pytest.raises(attnmux.UnavailableError, match=rf'"{name}" cannot run here.*use "'), attention_backend(name):
        pass
    assert active() == "native"


def test_install_and_uninstall_leave_nothing_behind():
    attnmux.diffusers.uninstall()
    registry = attention_dispatch._AttentionBackendRegistry
    kept = {name: dict(vars(registry)[name]) for name in ("_backends", "_constraints", "_supported_arg_names")}
    names = dict(vars(attention_dispatch))
    setter = attention_dispatch.__dict__, __import__("diffusers").ModelMixin.__dict__["set_attention_backend"]
    for _ in range(2):
        attnmux.diffusers.install()
        attnmux.diffusers.install()
        assert attention_dispatch._AttentionBackendRegistry is not registry
        attnmux.diffusers.uninstall()
        attnmux.diffusers.uninstall()
    assert attention_dispatch._AttentionBackendRegistry is registry
    assert {name: dict(vars(registry)[name]) for name in kept} == kept
    assert dict(vars(attention_dispatch)) == names
    assert __import__("diffusers").ModelMixin.__dict__["set_attention_backend"] is setter[1]
    assert attnmux.diffusers.served_names() == []


def test_names_can_be_left_to_diffusers():
    attnmux.diffusers.uninstall()
    before = attention_dispatch._AttentionBackendRegistry._backends[attention_dispatch.AttentionBackendName.FLEX]
    attnmux.diffusers.install(leave={"flex"})
    registry = attention_dispatch._AttentionBackendRegistry
    assert registry._backends[attention_dispatch.AttentionBackendName.FLEX] is before
    assert "flex" not in attnmux.diffusers.served_names()
    attnmux.diffusers.uninstall()
    with pytest.raises(attnmux.Error, match="leave has 'flax'"):
        attnmux.diffusers.install(leave={"flax"})


def test_a_backend_that_another_package_registered_keeps_working(calls):
    attnmux.diffusers.uninstall()
    registry, member = attention_dispatch._AttentionBackendRegistry, attention_dispatch.AttentionBackendName._NATIVE_XLA
    tables = (registry._backends, registry._constraints, registry._supported_arg_names)
    before = [table[member] for table in tables]

    def theirs(query, key, value, attn_mask=None, scale=None):
        calls.append("theirs")
        return query

    try:
        registry.register(member)(theirs)
        attnmux.diffusers.install(leave={member.value})
        q = torch.randn(1, 4, 2, 8)
        attention_dispatch.dispatch_attention_fn(q, q, q, backend=member)
        attention_dispatch.dispatch_attention_fn(q, q, q)
        assert calls == ["theirs", "native"]
    finally:
        attnmux.diffusers.uninstall()
        for table, value in zip(tables, before):
            table[member] = value
