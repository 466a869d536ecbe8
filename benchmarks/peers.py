# SPDX-License-Identifier: Apache-2.0
"""What attnmux is compared with: PyTorch's SDPA, OpenVINO's SDPA, and an unfused softmax(QKᵀ)V in PyTorch. All read the
buffers that attnmux reads. A peer that is not installed, or cannot do a row, says why."""
from __future__ import annotations

from corpus import Row

PEERS = ["pytorch", "openvino", "unfused"]

# How far a peer's output may be from ours, relative to the largest output, before it computes something else: a few
# roundings of the dtype, as both sides round P or the products on their own.
SAME = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}


class Unavailable(Exception):
    pass


def difference(ours, theirs) -> float:
    """The largest difference of two outputs, as fp32 numpy arrays, relative to the largest of ours."""
    return float(abs(ours - theirs).max() / max(abs(ours).max(), 1e-30))


def common_refusal(row: Row) -> str | None:
    if row.softcap:
        return "has no softcap"
    if row.dropout:
        return "draws other dropout masks"
    return None


class Torch:
    """PyTorch's views of a row's buffers, and its two sides."""

    def __init__(self, threads: int):
        try:
            import torch
        except ImportError:
            raise Unavailable("PyTorch is not installed: pip install -r benchmarks/requirements.txt") from None
        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "bool": torch.bool}

    def version(self) -> str:
        return f"{self.torch.__version__}, {self.torch.backends.cpu.get_cpu_capability()}"

    def view(self, buffer):
        flat = self.torch.frombuffer(buffer.map, dtype=self.dtypes[buffer.dtype], count=buffer.count, offset=buffer.offset)
        return flat.view(buffer.shape)

    def mask(self, row: Row, inputs):
        """(is_causal, one boolean or additive mask or None): causal alone has an argument of its own."""
        torch = self.torch
        square = row.Sq == row.Skv and not row.key_lengths
        others = row.window or row.key_lengths or row.mask
        if row.causal and not others and (square or row.causal == "top_left"):
            return True, None
        keep = None
        if row.causal or row.window or row.key_lengths:
            lengths = sorted(set(row.lengths()))
            if row.causal or row.window:
                by_length = {n: torch.zeros(row.Sq, row.Skv, dtype=torch.bool) for n in lengths}
                for n, part in by_length.items():
                    for i in range(row.Sq):
                        first, last = row.key_range(i, n)
                        part[i, max(0, first) : max(0, last)] = True
            else:
                by_length = {n: (torch.arange(row.Skv) < n).view(1, row.Skv) for n in lengths}
            keep = torch.stack([by_length[n] for n in row.lengths()]).unsqueeze(1)
        if inputs.mask is not None:
            given = self.view(inputs.mask)
            given = given.view(row.B, 1, 1, row.Skv) if row.mask == "padding" else given
            if keep is None:
                return False, given
            if given.dtype == torch.bool:
                return False, keep & given
            return False, given.masked_fill(~keep, float("-inf"))
        return False, keep

    def sdpa(self, row: Row, inputs):
        """Returns a function of the index of the copy of K and V."""
        if reason := common_refusal(row):
            raise Unavailable("PyTorch's SDPA " + reason)
        causal, mask = self.mask(row, inputs)
        q, ks, vs = self.view(inputs.q), [self.view(k) for k in inputs.ks], [self.view(v) for v in inputs.vs]
        attention, gqa = self.torch.nn.functional.scaled_dot_product_attention, row.Hq != row.Hkv
        return lambda i: attention(q, ks[i], vs[i], attn_mask=mask, is_causal=causal, enable_gqa=gqa)

    def unfused(self, row: Row, inputs):
        if reason := common_refusal(row):
            raise Unavailable("the unfused form " + reason)
        torch = self.torch
        causal, mask = self.mask(row, inputs)
        if causal:
            mask = torch.ones(row.Sq, row.Skv, dtype=torch.bool).tril()
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=self.dtypes[row.dtype]).masked_fill_(~mask, float("-inf"))
        group, scale = row.Hq // row.Hkv, row.D**-0.5
        q, ks, vs = self.view(inputs.q), [self.view(k) for k in inputs.ks], [self.view(v) for v in inputs.vs]
        if group > 1:
            ks, vs = ([x.repeat_interleave(group, 1) for x in xs] for xs in (ks, vs))  # outside of what is timed

        def run(i):
            scores = torch.matmul(q, ks[i].transpose(-2, -1)).mul_(scale)
            if mask is not None:
                scores.add_(mask)
            return torch.matmul(torch.softmax(scores, -1), vs[i])

        return run

    def floats(self, tensor):
        return tensor.float().numpy()


class OpenVino:
    """OpenVINO's SDPA: a model of the one operation, compiled for the CPU with the latency hint, one stream and so many
    threads, fed with tensors over our memory; nothing is copied and only `infer` is timed."""

    def __init__(self, threads: int):
        try:
            import numpy
            import openvino
        except ImportError as error:
            raise Unavailable(f"{error.name} is not installed: pip install -r benchmarks/requirements.txt") from None
        self.ov, self.numpy, self.threads = openvino, numpy, threads
        self.core = openvino.Core()

    def version(self) -> str:
        return self.ov.get_version()

    def refusal(self, row: Row) -> str | None:
        if reason := common_refusal(row):
            return reason
        if row.dtype == "fp16":
            return "runs fp16 models in other precisions on most CPUs"
        if row.Hq != row.Hkv:
            return "takes as many key heads as query heads"
        if row.Sq == 1:
            return "decodes with a state in its KV cache; without one its time says nothing"
        if row.window or row.key_lengths:
            return "has neither window nor key lengths"
        if row.causal and row.Sq != row.Skv:
            return "says nothing about the alignment of a causal mask"
        return None

    def tensor(self, buffer, typed: str):
        """Shares the buffer's memory where the type is the buffer's own; else a copy, converted outside of what is timed."""
        ov, numpy = self.ov, self.numpy
        words = {"fp32": numpy.float32, "bf16": numpy.uint16, "bool": numpy.bool_}[buffer.dtype]
        data = numpy.frombuffer(buffer.map, words, buffer.count, buffer.offset).reshape(buffer.shape)
        if buffer.dtype == "bf16" and typed == "bf16":
            return ov.Tensor(data, ov.Shape(buffer.shape), ov.Type.bf16)
        if buffer.dtype == "bf16":
            copy = ov.Tensor(ov.Type.f32, ov.Shape(buffer.shape))
            copy.data[:] = (data.astype(numpy.uint32) << 16).view(numpy.float32)
            return copy
        return ov.Tensor(data, shared_memory=True)  # holds no reference: the buffer has to outlive it

    def sdpa(self, row: Row, inputs, typed: str):
        """`typed` is the type of the model's inputs; the inference precision is the row's dtype. Returns a function of the
        index of the copy of K and V, and one that gives the output as floats."""
        if reason := self.refusal(row):
            raise Unavailable("OpenVINO's SDPA " + reason)
        ov = self.ov
        type_of = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "bool": ov.Type.boolean}
        q, ks, vs = self.tensor(inputs.q, typed), *([self.tensor(x, typed) for x in xs] for xs in (inputs.ks, inputs.vs))
        given = [q, ks[0], vs[0]]
        parameters = [ov.opset13.parameter(t.shape, type_of[typed]) for t in given]
        if inputs.mask is not None:
            mask = self.tensor(inputs.mask, typed)
            shape = [row.B, 1, 1, row.Skv] if row.mask == "padding" else list(mask.shape)
            mask.shape = shape
            parameters.append(ov.opset13.parameter(shape, type_of["bool" if inputs.mask.dtype == "bool" else typed]))
            given.append(mask)
        node = ov.opset13.scaled_dot_product_attention(*parameters, causal=bool(row.causal))
        settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": self.threads,
                    "INFERENCE_PRECISION_HINT": "bf16" if row.dtype == "bf16" else "f32"}
        try:
            compiled = self.core.compile_model(ov.Model([node], parameters), "CPU", settings)
        except RuntimeError as error:  # without BF16 instructions it takes no bf16 model
            raise Unavailable(f"OpenVINO cannot compile it: {str(error).strip().splitlines()[-1]}") from None
        request = compiled.create_infer_request()
        for i, t in enumerate(given):
            request.set_input_tensor(i, t)

        def run(i):
            if len(ks) > 1:
                request.set_input_tensor(1, ks[i])
                request.set_input_tensor(2, vs[i])
            request.infer(share_outputs=True)  # on this thread: 1 to 5 % faster than start_async() and wait()

        return run, lambda: self.floats(request.get_output_tensor(0))

    def floats(self, tensor):
        numpy = self.numpy
        if tensor.element_type == self.ov.Type.f32:
            return tensor.data.copy()
        words = tensor.data.view(numpy.uint16)  # numpy knows no bf16: the bits come as they are
        return (words.astype(numpy.uint32) << 16).view(numpy.float32)
