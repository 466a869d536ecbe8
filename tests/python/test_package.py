# SPDX-License-Identifier: Apache-2.0
"""What the installed package promises to tools: types, names, one library."""

import ast
import inspect
import pathlib
import re

import attnmux
import pytest
from attnmux import _core

FOLDER = pathlib.Path(attnmux.__file__).parent


def test_the_stub_is_of_the_module():
    tree = ast.parse((FOLDER / "_core.pyi").read_text())
    stubbed = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    constants = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert {*stubbed, *constants} == {name for name in dir(_core) if not name.startswith("_")}
    for name, node in stubbed.items():
        if isinstance(node, ast.FunctionDef):
            parameters = re.match(rf"{name}\((.*?)\) ->", getattr(_core, name).__doc__, re.S)[1]
            assert len(node.args.args) == (parameters.count(":") if parameters else 0), name


def test_public_names_have_types_and_words():
    assert (FOLDER / "py.typed").exists()
    assert set(attnmux.__all__) <= set(dir(attnmux)) and attnmux.__all__ == sorted(attnmux.__all__)
    for name in attnmux.__all__:
        thing = getattr(attnmux, name)
        assert thing.__doc__, name
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not inspect.Signature.empty, name
            assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values()), name


def test_the_verbs_have_the_same_arguments():
    attention = inspect.signature(attnmux.attention).parameters
    for verb, others, own in ((attnmux.plan, {"out"}, set()), (attnmux.explain, {"out"}, {"all"})):
        parameters = inspect.signature(verb).parameters
        assert set(attention) - set(parameters) == others and set(parameters) - set(attention) == own
        for name in set(parameters) & set(attention):
            assert parameters[name].default == attention[name].default, name


def test_everything_uses_one_library():
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "libattnmux" in line and ".so" in line}
    core = [path for path in loaded if "torch" not in pathlib.Path(path).name]
    assert len(core) == 1, core
    if (FOLDER / "_lib").is_dir():
        assert pathlib.Path(core[0]).samefile(FOLDER / "_lib" / "libattnmux.so")
