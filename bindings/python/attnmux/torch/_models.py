# SPDX-License-Identifier: Apache-2.0
"""A backend for one model, or for some of its modules, without editing it.

Each module that may call attention gets an instance attribute `forward` that runs its class's forward with the backend
noted for this thread (_layer.py), and torch.nn.functional.scaled_dot_product_attention is replaced by a function that looks
there (_patch.py). Nothing outside of these modules' forwards sees it.

The attribute is a bound method on purpose: copy.deepcopy rebinds it to the copy, and Dynamo guards its code and the
backend, which is an attribute of the module. So a compiled model recompiles once per new backend, and not on return.
"""

from __future__ import annotations

import fnmatch
import types
import weakref
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from attnmux import _core
from attnmux._backends import backend_id
from attnmux._errors import Code, Error, invalid
from attnmux.torch import _patch
from attnmux.torch._layer import running

_BACKEND, _OWN_FORWARD = "_attnmux_backend", "_attnmux_forward"

# Of PyTorch's own modules, those that call attention. In inference they would take a fused path around it.
_TORCH_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class _NoFastPath(TorchFunctionMode):
    """PyTorch's fused paths step back when a mode is active. This one does nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def _forward_of_class(self, *args, **kwargs):
    before = getattr(running, "backend", None)
    if not _patch.installed:
        _install_for(self)
    running.backend = self._attnmux_backend
    try:
        return type(self).forward(self, *args, **kwargs)
    finally:
        running.backend = before


def _forward_of_instance(self, *args, **kwargs):
    """For a module whose forward was an instance attribute already (hooks of other packages)."""
    before = getattr(running, "backend", None)
    if not _patch.installed:
        _install_for(self)
    running.backend = self._attnmux_backend
    try:
        return self._attnmux_forward(*args, **kwargs)
    finally:
        running.backend = before


def _forward_without_fast_path(self, *args, **kwargs):
    before = getattr(running, "backend", None)
    if not _patch.installed:
        _install_for(self)
    running.backend = self._attnmux_backend
    try:
        with _NoFastPath():
            return type(self).forward(self, *args, **kwargs)
    finally:
        running.backend = before



_functions: weakref.WeakKeyDictionary[type, dict[Callable, Callable]] = weakref.WeakKeyDictionary()


def _function(template: Callable, cls: type) -> Callable:
    """The template with a code object of its own per class: Dynamo keeps compiled variants, a limited number, by code."""
    per_class = _functions.setdefault(cls, {})
    if template not in per_class:
        # The name is what unpickling a pickled module would look for, and report as missing.
        code = template.__code__.replace(co_name="forward_pinned_by_attnmux")
        function = types.FunctionType(code, template.__globals__, "forward_pinned_by_attnmux")
        function.__attnmux_pin__ = True
        per_class[template] = function
    return per_class[template]


def _install_for(module: nn.Module) -> None:
    """A copy of a pinned module outlived the pin of its original."""
    _patch.pinned.add(module)
    _patch.install()


def _unwrapped(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise invalid(f"model is a {type(model).__name__}; accepted is a torch.nn.Module")
    return getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps


def _may_attend(module: nn.Module) -> bool:
    """PyTorch's own layers but a few call no attention themselves; any other class may."""
    return isinstance(module, _TORCH_ATTENTION) or type(module).__module__.partition(".")[0] != "torch"


def _matching(model: nn.Module, path: str | Iterable[str] | None) -> dict[nn.Module, str]:
    """The modules that `path` matches and all inside of them, with their names."""
    named = dict(model.named_modules())
    if path is None:
        roots = [""]
    else:
        roots = []
        for pattern in [path] if isinstance(path, str) else path:
            found = [name for name in named if name and fnmatch.fnmatchcase(name, pattern)]
            if not found:
                raise invalid(f"path is {pattern!r}, which matches no module of the model; {_paths(named)}")
            roots += found
    modules = {}
    for root in roots:
        for name, module in named[root].named_modules(prefix=root):
            modules.setdefault(module, name)
    return modules


def _paths(named: dict[str, nn.Module]) -> str:
    names = [name for name, module in named.items() if name and _may_attend(module)]
    shown = ", ".join(names[:40])
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"its modules that may call attention are: {shown or 'none but the model itself (path=None)'}{more}"


def set_attention_backend(model: nn.Module, backend: str, path: str | Iterable[str] | None = None) -> None:
    """Attention in the forward of `model` uses `backend`, until reset_attention_backend(model): on every thread, compiled or
    not. Other models are not affected. Scopes do not override it; a call that names a backend itself does.

    path   a glob, or several, over the names in model.named_modules(): only these modules and what is inside of them.
           `*` matches dots too. A later call overrides an earlier one where they meet.

    It reaches attention that goes through torch.nn.functional.scaled_dot_product_attention or attnmux.torch's, called
    from the forward of a module; torch.nn.MultiheadAttention and TransformerEncoder too.
    """
    chosen = backend if type(backend) is int else backend_id(backend)
    _core.check_available(chosen)
    model = _unwrapped(model)
    targets = _pinnable(model, path)
    _patch.install()
    for module in targets:
        _pin(module, chosen)


def _pinnable(model: nn.Module, path: str | Iterable[str] | None) -> list[nn.Module]:
    targets = []
    for module, name in _matching(model, path).items():
        if isinstance(module, torch.jit.ScriptModule):
            raise invalid(f"module {name!r} is TorchScript, whose attention cannot be switched; accepted are Python modules")
        if _may_attend(module):
            targets.append(module)
    if not targets:
        where = "the model has" if path is None else f"path is {path!r}, which matches"
        raise invalid(f"{where} no module that may call attention; {_paths(dict(model.named_modules()))}")
    return targets


def _pin(module: nn.Module, backend: int) -> None:
    attributes = module.__dict__
    if _BACKEND not in attributes:
        own = attributes.get("forward")
        if own is not None:
            attributes[_OWN_FORWARD] = own
            template = _forward_of_instance
        else:
            template = _forward_without_fast_path if isinstance(module, _TORCH_ATTENTION) else _forward_of_class
        attributes["forward"] = types.MethodType(_function(template, type(module)), module)
    attributes[_BACKEND] = backend
    _patch.pinned.add(module)


def reset_attention_backend(model: nn.Module, path: str | Iterable[str] | None = None) -> None:
    """Undoes set_attention_backend, for the whole model or for what `path` matches: the modules are as they were."""
    pinned = [(m, name) for m, name in _matching(_unwrapped(model), path).items() if _BACKEND in m.__dict__]
    for module, name in pinned:
        forward = module.__dict__.get("forward")
        if not getattr(getattr(forward, "__func__", None), "__attnmux_pin__", False):
            raise Error(
                f"[attention] module {name!r} has a forward that was put there after set_attention_backend ({forward!r}); "
                "undo that first",
                Code.INTERNAL,
            )
    for module, _ in pinned:
        attributes = module.__dict__
        del attributes[_BACKEND], attributes["forward"]
        if _OWN_FORWARD in attributes:
            attributes["forward"] = attributes.pop(_OWN_FORWARD)
        _patch.pinned.discard(module)
    _patch.uninstall_if_unused()
