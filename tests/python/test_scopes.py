# SPDX-License-Identifier: Apache-2.0
"""Which backend a call uses: call > scope of this thread > process default > ATTNMUX_BACKEND > native."""

import asyncio
import itertools
import threading

import attnmux
import numpy as np
import pytest
from attnmux import _scopes

x = np.ones((1, 4, 2, 8), np.float32)


def backend_of(**options):
    return attnmux.explain(x, x, x, **options).backend


@pytest.fixture(autouse=True)
def restored_default():
    yield
    attnmux.set_default_attention_backend(None)
    assert getattr(_scopes._scope, "backend", None) is None, "a test left a scope open"


def test_precedence():
    assert backend_of() == attnmux.default_attention_backend() == "native"
    attnmux.set_default_attention_backend("xformers")
    assert backend_of() == attnmux.default_attention_backend() == "xformers"
    with attnmux.attention_backend("flash"):
        assert backend_of() == "flash"
        assert backend_of(backend="_native_math") == "_native_math"
        with attnmux.attention_backend("_native_flash"):
            assert backend_of() == "_native_flash"
        assert backend_of() == "flash"
    assert backend_of() == "xformers"
    assert _scopes.resolve(layer="flash") == _scopes.resolve("flash") != _scopes.resolve()
    assert _scopes.resolve("flash", layer="native") == _scopes.resolve("flash")


def test_a_scope_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), attnmux.attention_backend("flash"):
        1 / 0
    assert backend_of() == "native"


def test_as_a_decorator():
    @attnmux.attention_backend("flash")
    def layer():
        return backend_of()

    assert [layer(), layer(), backend_of()] == ["flash", "flash", "native"]


def test_misspelt_names_have_suggestions():
    with pytest.raises(attnmux.UnknownBackendError, match="flash"), attnmux.attention_backend("flahs"):
        raise AssertionError("the block must not run")
    with pytest.raises(attnmux.UnknownBackendError, match="flash"):
        attnmux.set_default_attention_backend("flahs")
    with pytest.raises(attnmux.UnavailableError, match="sage"):
        attnmux.set_default_attention_backend("sage")  # as in C++, a default must be able to run here
    assert attnmux.default_attention_backend() == "native"


def test_ids_are_the_librarys_positions():
    names = [b.name for b in attnmux.list_backends()]
    assert [_scopes.resolve(name) for name in names] == list(range(1, len(names) + 1))
    assert (
        names[0] == "native" and names[8] == "flash" and names[19] == "xformers"
    )  # append-only: saved graphs hold them


def test_threads_have_their_own_scopes():
    names = ["flash", "xformers", "_native_math", "_native_flash"] * 2
    seen, barrier = {}, threading.Barrier(len(names))

    def work(index, name):
        barrier.wait()
        with attnmux.attention_backend(name):
            for _ in range(20):
                barrier.wait()
                seen.setdefault(index, set()).add(backend_of())
                attnmux.attention(x, x, x)
        seen[index].add("after: " + backend_of())

    with attnmux.attention_backend("flash"):
        workers = [threading.Thread(target=work, args=item) for item in enumerate(names)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert seen == {i: {name, "after: native"} for i, name in enumerate(names)}


def test_a_scope_is_taken_along_to_a_worker():
    seen = []

    def work(token):
        with attnmux.attention_backend("xformers"):
            with attnmux.restore(token):
                seen.append(backend_of())
            seen.append(backend_of())

    with attnmux.attention_backend("flash"):
        inside = attnmux.capture()
    outside = attnmux.capture()
    assert (inside.backend, outside.backend) == ("flash", None) and "flash" in repr(inside)
    for token in (inside, outside):
        worker = threading.Thread(target=work, args=(token,))
        worker.start()
        worker.join()
    assert seen == ["flash", "xformers", "native", "xformers"]


def test_a_scope_across_await_is_seen_by_other_tasks():
    """What the guide warns of; if this ever fails, the guide can be shorter."""

    async def holder(entered, leave):
        with attnmux.attention_backend("flash"):
            entered.set()
            await leave.wait()

    async def main():
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holder(entered, leave))
        await entered.wait()
        seen = backend_of()
        leave.set()
        await task
        return seen

    assert asyncio.run(main()) == "flash"
    assert backend_of() == "native"


def test_scoped_is_seen_by_its_own_task_only():
    names = ["flash", "xformers", "_native_math", "flash"]

    async def steps():
        seen = []
        for i in range(5):
            seen.append(backend_of())
            await asyncio.sleep(0.001 * (i % 2))
        with attnmux.attention_backend("_native_flash"):  # stays over an await, and inside of its task
            await asyncio.sleep(0.001)
            seen.append(backend_of())
        return [*seen, backend_of()]

    async def bystander(seen):
        for _ in range(30):
            seen.add(backend_of())
            await asyncio.sleep(0.0003)

    async def main():
        outside = set()
        results = await asyncio.gather(
            bystander(outside), *(_as_coroutine(attnmux.scoped(name, steps())) for name in names)
        )
        return results[1:], outside

    results, outside = asyncio.run(main())
    assert results == [[*[name] * 5, "_native_flash", name] for name in names]
    assert outside == {"native"} and backend_of() == "native"


async def _as_coroutine(awaitable):
    return await awaitable


def test_scoped_passes_on_cancellation_and_errors():
    log = []

    async def inner():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append(backend_of())
            raise

    async def failing():
        await asyncio.sleep(0)
        raise KeyError("x")

    async def main():
        task = asyncio.create_task(_as_coroutine(attnmux.scoped("flash", inner())))
        await asyncio.sleep(0)
        assert backend_of() == "native"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(KeyError):
            await attnmux.scoped("flash", failing())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_as_coroutine(attnmux.scoped("flash", asyncio.sleep(60))), 0.01)
        return await attnmux.scoped("flash", asyncio.sleep(0, "value")), backend_of()

    assert asyncio.run(main()) == ("value", "native")
    assert log == ["flash"]


def test_results_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 64, 4, 32)).astype(np.float32) for _ in range(3))
    names = ["flash", "_native_math", "xformers", "native"]
    expected = {name: attnmux.attention(q, k, v, backend=name) for name in names}
    wrong = []

    def work(name):
        with attnmux.attention_backend(name):
            wrong.extend(name for _ in range(25) if not np.array_equal(attnmux.attention(q, k, v), expected[name]))

    workers = [threading.Thread(target=work, args=(name,)) for name in itertools.islice(itertools.cycle(names), 8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
