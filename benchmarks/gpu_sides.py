# SPDX-License-Identifier: Apache-2.0
"""The sides of a GPU benchmark. A side is made for one row's Inputs and gives launch(copy), which queues the row's
attention on the current stream and returns the output; it raises Refused where it cannot do the row."""
from __future__ import annotations

import ctypes
import importlib.util
import pathlib

import attnmux_ctypes as attnmux
from gpu_inputs import Inputs, keep_mask

PEERS = ["pytorch_flash", "pytorch_cudnn", "pytorch_efficient", "pytorch_math", "pytorch_default", "pytorch_varlen", "flex"]


class Refused(Exception):
    pass


def refuse_e4m3(row) -> None:
    if row.dtype == "e4m3":
        raise Refused("it has no e4m3")


class Attnmux:
    """One backend of the library. The choice is made once; every launch is one call of attnmux_plan_run."""

    def __init__(self, torch, library: str, backend: str):
        self.torch, self.library = torch, attnmux.Library(library, backend)

    def _view(self, t):
        names = {self.torch.float32: "fp32", self.torch.float16: "fp16", self.torch.bfloat16: "bf16",
                 self.torch.bool: "bool", self.torch.int32: "int32", self.torch.float8_e4m3fn: "e4m3"}
        return attnmux.tensor(t.data_ptr(), names[t.dtype], tuple(t.shape), t.stride(), t.device.index)

    def make(self, inputs: Inputs):
        torch, row = self.torch, inputs.row
        o = attnmux.Options()

        def give(bit, **fields):
            o.set |= bit
            for name, value in fields.items():
                setattr(o, name, value)

        if row.causal:
            give(attnmux.CAUSAL, causal_align=attnmux.ALIGNMENTS["" if row.packed else row.causal])
        if row.window:
            left, right = row.window
            give(attnmux.WINDOW, window_left=left, window_right=right,
                 window_align=attnmux.ALIGNMENTS[row.window_align])
        if inputs.lengths is not None:
            give(attnmux.KEY_LENGTHS, key_lengths=self._view(inputs.lengths))
        if row.mask == "padding":
            give(attnmux.KEY_PADDING, key_padding=self._view(inputs.mask))
        elif inputs.mask is not None:
            give(attnmux.DENSE, dense_mask=self._view(inputs.mask))
        if inputs.bias is not None:
            give(attnmux.BIAS, bias=self._view(inputs.bias))
        if row.softcap:
            give(attnmux.SOFTCAP, softcap=row.softcap)
        if inputs.cu_seqlens is not None:
            o.cu_seqlens_q = o.cu_seqlens_kv = self._view(inputs.cu_seqlens)
            o.max_seqlen_q = o.max_seqlen_kv = max(row.lengths())
            o.set |= attnmux.VARLEN
        dtype = torch.bfloat16 if row.dtype == "e4m3" else inputs.q[0].dtype
        out = torch.empty(*inputs.q[0].shape[:-1], row.Dv, dtype=dtype, device="cuda")
        tensors = [tuple(map(self._view, (q, k, v, out))) for q, k, v in zip(inputs.q, inputs.k, inputs.v)]
        execution = attnmux.Exec(set=attnmux.EXEC_WORKSPACE, stream=1)
        try:
            kernel, workspace_bytes, run = self.library.plan(*tensors[0], o, execution)
        except attnmux.AttnmuxError as error:
            raise Refused(str(error)) from None
        workspace = torch.empty(max(1, workspace_bytes), dtype=torch.uint8, device="cuda")
        execution.workspace, execution.workspace_bytes = workspace.data_ptr(), workspace_bytes
        arguments = [[*map(ctypes.byref, one), ctypes.byref(o), ctypes.byref(execution)] for one in tensors]

        def launch(copy, _kept=(tensors, o, execution, workspace)):
            execution.stream = torch.cuda.current_stream().cuda_stream or 1
            run(*arguments[copy])
            return out

        launch.kernel = kernel
        return launch


class PyTorch:
    """F.scaled_dot_product_attention with one of its backends; default: as PyTorch chooses."""

    def __init__(self, torch, which: str):
        self.torch, self.which = torch, which

    def make(self, inputs: Inputs):
        torch, row = self.torch, inputs.row
        refuse_e4m3(row)
        backend = torch.nn.attention.SDPBackend
        backends = {"flash": [backend.FLASH_ATTENTION], "cudnn": [backend.CUDNN_ATTENTION],
                    "efficient": [backend.EFFICIENT_ATTENTION], "math": [backend.MATH]}.get(self.which)
        if row.packed or row.softcap or row.dropout:
            raise Refused("F.scaled_dot_product_attention has no packed sequences, softcap or equal dropout")
        if self.which == "math" and row.B * row.Hq * row.Sq * row.Skv > 2**31:
            raise Refused("the scores would take more than 8 GB")
        plain_causal = row.causal and not (row.window or row.key_lengths or row.mask)
        if plain_causal and (row.Sq == row.Skv or row.causal == "top_left"):
            mask, is_causal = None, True
        else:
            mask, is_causal = keep_mask(torch, inputs), False
        if inputs.bias is not None:
            mask = inputs.bias if mask is None else inputs.bias.masked_fill(~mask, float("-inf"))
        views = [[x.transpose(1, 2) for x in one] for one in zip(inputs.q, inputs.k, inputs.v)]

        def launch(copy):
            out = torch.nn.functional.scaled_dot_product_attention(*views[copy], attn_mask=mask, is_causal=is_causal,
                                                                   enable_gqa=row.Hq != row.Hkv)
            return out.transpose(1, 2)

        if backends is None:
            return launch

        def launch_with(copy):
            with torch.nn.attention.sdpa_kernel(backends):
                return launch(copy)

        return launch_with


class Varlen:
    """PyTorch's own packed FlashAttention."""

    def __init__(self, torch):
        self.torch = torch

    def make(self, inputs: Inputs):
        torch, row = self.torch, inputs.row
        refuse_e4m3(row)
        if not row.packed or row.window:
            raise Refused("it is for packed sequences without a window")
        longest, ends = max(row.lengths()), inputs.cu_seqlens

        def launch(copy):
            return torch.ops.aten._flash_attention_forward(inputs.q[copy], inputs.k[copy], inputs.v[copy], ends, ends,
                                                           longest, longest, 0.0, bool(row.causal), False)[0]

        return launch


class Flex:
    """flex_attention, compiled for the row."""

    def __init__(self, torch):
        self.torch = torch

    def make(self, inputs: Inputs):
        torch, row = self.torch, inputs.row
        refuse_e4m3(row)
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        if row.packed or row.key_lengths or row.mask or row.softcap or row.dropout or row.window:
            raise Refused("it is timed on plain and causal rows only")
        block = None
        if row.causal:
            shift = row.Skv - row.Sq if row.causal == "bottom_right" else 0
            block = create_block_mask(lambda b, h, i, j: j <= i + shift, None, None, row.Sq, row.Skv, device="cuda")
        compiled = torch.compile(flex_attention, dynamic=False)
        views = [[x.transpose(1, 2) for x in one] for one in zip(inputs.q, inputs.k, inputs.v)]
        return lambda copy: compiled(*views[copy], block_mask=block, enable_gqa=row.Hq != row.Hkv).transpose(1, 2)


class File:
    """--peer FILE.py: `name`, and `attention(q, k, v, *, causal, window, key_lengths, mask, bias, scale)` on (B, S, H, D)
    CUDA tensors, which returns the output and raises NotImplementedError for what it cannot do."""

    def __init__(self, path: str):
        file = pathlib.Path(path)
        if not file.is_file():
            raise ValueError(f"--peer: {path} is not a file; accepted: a Python file with `name` and `attention`")
        spec = importlib.util.spec_from_file_location(f"attnmux_peer_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for needed in ("name", "attention"):
            if not hasattr(module, needed):
                raise ValueError(f"--peer: {path} defines no `{needed}`; accepted: a file with `name` and `attention`")
        self.name, self.attention = str(module.name), module.attention

    def make(self, inputs: Inputs):
        row = inputs.row
        refuse_e4m3(row)
        if row.packed or row.softcap or row.dropout:
            raise Refused("the interface of a peer file has no packed sequences, softcap or dropout")
        options = {"causal": row.causal or None, "window": row.window, "key_lengths": inputs.lengths,
                   "mask": inputs.mask, "bias": inputs.bias, "scale": row.D**-0.5}

        def launch(copy):
            try:
                return self.attention(inputs.q[copy], inputs.k[copy], inputs.v[copy], **options)
            except NotImplementedError as error:
                raise Refused(str(error) or "the peer cannot do this row") from None

        return launch


def peers(torch, names: list, files: list) -> dict:
    sides = {}
    for name in names:
        if name == "flex":
            sides[name] = Flex(torch)
        elif name == "pytorch_varlen":
            sides[name] = Varlen(torch)
        else:
            sides[name] = PyTorch(torch, name.removeprefix("pytorch_"))
    for path in files:
        side = File(path)
        sides[side.name] = side
    return sides
