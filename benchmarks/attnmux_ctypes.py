# SPDX-License-Identifier: Apache-2.0
"""libattnmux.so through its C ABI (include/attnmux/attnmux_c.h), with nothing but ctypes."""
from __future__ import annotations

import ctypes
import json

DTYPES = {"fp32": 1, "fp16": 2, "bf16": 3, "bool": 5, "int32": 7, "e4m3": 8}
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "bool": 1, "int32": 4, "e4m3": 1}
ALIGNMENTS = {"": 0, "top_left": 1, "bottom_right": 2}
CAUSAL, WINDOW, KEY_LENGTHS, KEY_PADDING, DENSE, BIAS, SOFTCAP = (1 << bit for bit in range(7))
DROPOUT, VARLEN, DESCALE = 1 << 9, 1 << 10, 1 << 13
EXEC_WORKSPACE = 1
DESCRIBE_MACHINE, DESCRIBE_ABI = 2, 3


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32), ("shape", ctypes.c_int64 * 4),
                ("strides", ctypes.c_int64 * 4)]


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("backend", ctypes.c_uint16), ("layer_backend", ctypes.c_uint16),
                ("kernel", ctypes.c_uint16), ("reserved", ctypes.c_uint16 * 3), ("layer_role", ctypes.c_char * 16),
                ("set", ctypes.c_uint64), ("conflicts", ctypes.c_uint64), ("scale", ctypes.c_double),
                ("softcap", ctypes.c_double), ("dropout_p", ctypes.c_double), ("dropout_seed", ctypes.c_uint64),
                ("dropout_offset", ctypes.c_uint64), ("window_left", ctypes.c_int64), ("window_right", ctypes.c_int64),
                ("causal_align", ctypes.c_int32), ("window_align", ctypes.c_int32), ("max_seqlen_q", ctypes.c_int64),
                ("max_seqlen_kv", ctypes.c_int64), ("key_lengths", Tensor), ("key_padding", Tensor),
                ("dense_mask", Tensor), ("bias", Tensor), ("lse", Tensor), ("cu_seqlens_q", Tensor),
                ("cu_seqlens_kv", Tensor), ("q_descale", Tensor), ("k_descale", Tensor), ("v_descale", Tensor)]

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(Options), **fields)


class Exec(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("num_threads", ctypes.c_int32), ("set", ctypes.c_uint64),
                ("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p), ("workspace_bytes", ctypes.c_size_t),
                ("parallel_for", ctypes.c_void_p), ("pool", ctypes.c_void_p), ("stream_allocate", ctypes.c_void_p),
                ("stream_deallocate", ctypes.c_void_p), ("stream_user", ctypes.c_void_p)]

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(Exec), **fields)


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("length", ctypes.c_uint32), ("message", ctypes.c_char * 504)]


STRUCTS = {"attnmux_tensor": Tensor, "attnmux_options": Options, "attnmux_exec": Exec, "attnmux_error": Error}


class AttnmuxError(Exception):
    pass


def tensor(address: int, dtype: str, shape: tuple, strides: tuple, cuda: int | None = None) -> Tensor:
    """A view of memory of the CPU, or of the CUDA device of that number."""
    zeros = (0,) * (4 - len(shape))
    device = (1, 0) if cuda is None else (2, cuda)
    return Tensor(address, DTYPES[dtype], *device, len(shape), (*shape, *zeros), (*strides, *zeros))


class Library:
    """The library, and the backend (and kernel of it) that its calls ask for."""

    def __init__(self, path: str, backend: str = "native", kernel: str | None = None):
        try:
            self.c = ctypes.CDLL(path)
        except OSError as error:
            raise AttnmuxError(f"{path} cannot be loaded: {error}") from None
        self.path = path
        for name, restype, argtypes in [
            ("attnmux_version", ctypes.c_char_p, []),
            ("attnmux_plan_kernel", ctypes.c_char_p, [ctypes.c_void_p]),
            ("attnmux_plan_release", None, [ctypes.c_void_p]),
            ("attnmux_plan_workspace_bytes", ctypes.c_size_t, [ctypes.c_void_p]),
            ("attnmux_backend_find", ctypes.c_uint16, [ctypes.c_char_p, ctypes.c_size_t]),
            ("attnmux_kernel_find", ctypes.c_uint16, [ctypes.c_char_p, ctypes.c_size_t]),
        ]:
            try:
                function = getattr(self.c, name)
            except AttributeError:
                raise AttnmuxError(f"{path} has no {name}: it is not attnmux's shared library") from None
            function.restype, function.argtypes = restype, argtypes
        self.backend = self._find("backend", backend)
        self.kernel = self._find("kernel", kernel) if kernel else 0

    def _find(self, kind: str, name: str) -> int:
        found = getattr(self.c, f"attnmux_{kind}_find")(name.encode(), len(name.encode()))
        if not found:
            raise AttnmuxError(f"{self.path} knows no {kind} '{name}'; 'attnmux list' shows what it knows")
        return found

    def version(self) -> str:
        return self.c.attnmux_version().decode()

    def describe(self, topic: int) -> dict:
        text = []
        write = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
            lambda _, data, length: text.append(ctypes.string_at(data, length)))
        error = Error()
        self._checked(self.c.attnmux_describe(topic, write, None, ctypes.byref(error)), error)
        return json.loads(b"".join(text))

    def plan(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, options: Options, execution: Exec):
        """Returns (the name of the kernel, the bytes of its workspace, a function that runs the plan on any tensors of
        these shapes: it takes q, k, v, out, options and execution, whose backend and kernel do not matter any more)."""
        options.backend, options.kernel = self.backend, self.kernel
        error, plan = Error(), ctypes.c_void_p()
        arguments = [ctypes.byref(x) for x in (q, k, v, out, options, execution)]
        self._checked(self.c.attnmux_plan_create(*arguments, ctypes.byref(plan), ctypes.byref(error)), error)
        run, last = self.c.attnmux_plan_run, ctypes.byref(error)

        def call(*own):
            if run(plan, *own, last) != 0:
                raise AttnmuxError(error.message.decode())

        return self.c.attnmux_plan_kernel(plan).decode(), self.c.attnmux_plan_workspace_bytes(plan), call

    @staticmethod
    def _checked(code: int, error: Error) -> None:
        if code != 0:
            raise AttnmuxError(error.message.decode())

    def prepare(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, options: Options, threads: int):
        """Returns (the name of the kernel, a function that runs it): the choice is made once, the workspace is the
        library's own."""
        options.backend, options.kernel = self.backend, self.kernel
        error, plan = Error(), ctypes.c_void_p()
        kept = (q, k, v, out, options, Exec(num_threads=threads))  # byref holds no reference that outlives the closure
        arguments = [ctypes.byref(argument) for argument in kept]
        self._checked(self.c.attnmux_plan_create(*arguments, ctypes.byref(plan), ctypes.byref(error)), error)
        name = self.c.attnmux_plan_kernel(plan).decode()
        run, last = self.c.attnmux_plan_run, ctypes.byref(error)

        def call(_kept=kept):
            code = run(plan, *arguments, last)
            if code != 0:
                raise AttnmuxError(error.message.decode())

        return name, call
