# SPDX-License-Identifier: Apache-2.0
"""Times launches on a GPU: each side captured in a CUDA graph of several launches, the graphs replayed in turn."""
from __future__ import annotations

import statistics
import time

from gpu_sides import Refused

# A graph has at least 20 launches, so that what the host does cannot be seen, unless few last as long.
LEAST_LAUNCHES, LONG_SECONDS, LONG_LAUNCHES = 20, 2e-3, 4


def elapsed(torch, work) -> float:
    """Seconds of what `work` queues, by the GPU's clock."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def launches_for(seconds: float) -> int:
    return LEAST_LAUNCHES if seconds < LONG_SECONDS else LONG_LAUNCHES


def capture(torch, launch, copies: int):
    """(graph, its number of launches) after a warm-up. A side that cannot be captured raises Refused."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for copy in range(copies):
            launch(copy)
        torch.cuda.synchronize()
        count = launches_for(elapsed(torch, lambda: launch(0)))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for number in range(count):
                launch(number % copies)
    except RuntimeError as error:
        raise Refused(f"it cannot be captured in a CUDA graph: {str(error).splitlines()[0]}") from None
    return graph, count


def rotate(torch, graphs: dict, rounds: int, seconds: float) -> dict:
    """Median seconds of one launch per side; the sides take turns, in an order that rotates."""
    measured = {name: [] for name in graphs}
    names = list(graphs)
    for graph, _ in graphs.values():
        graph.replay()
    torch.cuda.synchronize()
    begin, turn = time.monotonic(), 0
    while turn < rounds or time.monotonic() - begin < seconds * len(names):
        for name in names[turn % len(names):] + names[: turn % len(names)]:
            graph, count = graphs[name]
            measured[name].append(elapsed(torch, graph.replay) / count)
        turn += 1
    return {name: statistics.median(values) for name, values in measured.items()}


def host_seconds(torch, launch, calls: int = 100) -> float:
    """What one call costs the host: median of ten bursts of calls, none of which waits for the GPU."""
    launch(0)
    bursts = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls // 10):
            launch(0)
        bursts.append((time.perf_counter() - start) / (calls // 10))
    torch.cuda.synchronize()
    return statistics.median(bursts)


def ceilings(torch) -> dict:
    """FLOP/s of a large matrix product, also on 8-bit numbers where the GPU has them, and bytes/s (read and written) of a
    large copy, in this run."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    graphs = {"product": capture(torch, lambda _: torch.matmul(a, b), 1),
              "copy": capture(torch, lambda _: target.copy_(source), 1)}
    if torch.cuda.get_device_capability() >= (8, 9):
        narrow, one = [x.to(torch.float8_e4m3fn) for x in (a, b)], torch.ones((), device="cuda")
        graphs["fp8_product"] = capture(torch, lambda _: torch._scaled_mm(narrow[0], narrow[1].t(), one, one,
                                                                          out_dtype=torch.bfloat16), 1)
    seconds = rotate(torch, graphs, 5, 0.2)
    products = {f"{kind}_product_tflops": 2 * 8192**3 / seconds[name] / 1e12
                for kind, name in (("bf16", "product"), ("fp8", "fp8_product")) if name in seconds}
    return {**products,
            "copy_gbytes_per_second": 2 * source.numel() / seconds["copy"] / 1e9}
