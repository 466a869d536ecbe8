# SPDX-License-Identifier: Apache-2.0
from typing import Any, Optional

Arrays = Optional[tuple[Any, Any, Any, Any, Any, Any]]

DESCRIBE_BACKENDS: int
DESCRIBE_MACHINE: int
EXPLAIN_ALL: int
EXPLAIN_JSON: int

class Scalars:
    def __init__(
        self,
        causal_align: Optional[int] = None,
        window: Optional[tuple[int, int, int]] = None,
        scale: Optional[float] = None,
        softcap: float = 0.0,
        dropout_p: float = 0.0,
        seed: Optional[int] = None,
        max_seqlen_q: int = 0,
        max_seqlen_kv: int = 0,
        allow_lossy: bool = False,
        kernel: str = "",
    ) -> None: ...

class Plan:
    def __init__(
        self,
        q: Any,
        k: Any,
        v: Any,
        out: Any,
        lse: Any,
        scalars: Scalars,
        arrays: Arrays,
        backend: int,
        stream: Any,
    ) -> None: ...
    def run(
        self, q: Any, k: Any, v: Any, out: Any, lse: Any, scalars: Scalars, arrays: Arrays, stream: Any
    ) -> None: ...
    @property
    def kernel(self) -> str: ...
    @property
    def backend(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...

def attention(
    q: Any, k: Any, v: Any, out: Any, lse: Any, scalars: Scalars, arrays: Arrays, backend: int, stream: Any
) -> None: ...
def explain(
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    scalars: Scalars,
    arrays: Arrays,
    backend: int,
    stream: Any,
    flags: int,
) -> str: ...
def backend_names() -> list[str]: ...
def find_backend(name: str) -> int: ...
def backend_named(name: str) -> int: ...
def check_available(backend: int) -> None: ...
def describe(topic: int) -> str: ...
def set_default_backend(backend: int) -> None: ...
def default_backend() -> int: ...
def check_environment() -> None: ...
def set_num_threads(threads: int) -> None: ...
def num_threads() -> int: ...
def release_workspace() -> None: ...
def load_plugin(path: str) -> None: ...
def version() -> str: ...
def prepare_exit(other_threads: bool) -> None: ...
def forget_threads() -> None: ...
