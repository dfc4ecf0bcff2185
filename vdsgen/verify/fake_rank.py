"""One rank of a process group whose other ranks do not exist, on tensors that have no memory.

Tensors are torch's FakeTensors: shape, dtype and a storage of the true size with nothing in it. Collectives
go to torch's `fake` backend, which completes at once. The engine's own code runs unchanged; what it cannot
get from tensors without contents, or from ranks that are not there, is put in its place here, item by item.
DeepSpeed's files are of 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from vdsgen.profile.kernels import ChosenAttention, full_text
from vdsgen.verify.exchange import Exchange

aten = torch.ops.aten

PLAIN_NUMBER = 1.0
"""What a floating-point tensor without contents reads as: finite and positive, as a loss or a norm is."""


class GpuAnswers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what tensors without contents cannot, and computes what a GPU would keep.

    * Reading a value (`.item()`, `bool()`, `float()`) gives the constant where torch knows it, else
      PLAIN_NUMBER, False or 0: no overflow, a finite norm, which is the path that every normal step takes.
    * Layer norm's statistics of half precision input are fp32, as on a GPU; on a processor they have the
      input's dtype.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is aten._local_scalar_dense.default:
            return _value_of(args[0])
        result = func(*args, **(kwargs or {}))
        return as_on_gpu(result) if func is aten.native_layer_norm.default else result


def as_on_gpu(layer_norm: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and reciprocal deviation of a layer norm, the statistics in fp32."""
    output, mean, deviation = layer_norm
    return output, mean.float(), deviation.float()


def _value_of(tensor: Tensor) -> float | int | bool:
    constant: Tensor | None = getattr(tensor, "constant", None)
    if constant is not None:
        value: float | int | bool = constant.item()
        return value
    if tensor.dtype.is_floating_point:
        return PLAIN_NUMBER
    return False if tensor.dtype == torch.bool else 0


def join_fake_group(rank: int, world_size: int) -> None:
    """Makes this process rank `rank` of a group of which it is the only member; once a process."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK="0",
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="1",  # never opened
    )
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    # A GPU trains in fp16; a processor refuses.
    get_accelerator().is_fp16_supported = lambda: True
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # see vdsgen/model/distributed.py
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    deepspeed.init_distributed(dist_backend="fake", verbose=False)


@contextmanager
def without_memory(books: TorchDispatchMode, exchange: Exchange) -> Iterator[None]:
    """Inside, new tensors have no memory, `books` see every operator, attention is a GPU's flash kernel,
    and what other ranks would say is known beforehand."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        for substitute in _substitutes(exchange):
            stack.enter_context(substitute)
        # The last to be entered is the first to see an operator.
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        for mode in (fake, books, GpuAnswers(), ChosenAttention("flash"), full_text()):  # type: ignore[no-untyped-call]
            stack.enter_context(mode)
        yield


def _substitutes(exchange: Exchange) -> Iterator[AbstractContextManager[Any]]:
    """Each a patch, with why."""
    from deepspeed.runtime.pipe.engine import PipelineEngine
    from deepspeed.runtime.zero import utils as zero_utils

    def take_data(tensor: Tensor, other: Tensor) -> None:
        tensor.data = other.data

    def forget_value(module: Any, name: str, parameter: Any) -> None:  # noqa: ARG001
        if getattr(parameter, "constant", None) is not None:
            parameter.constant = None

    def receive_meta(engine: Any, send_stage: int) -> tuple[Tensor, ...]:  # noqa: ARG001
        return tuple(
            engine._allocate_or_extend_buffers(index, list(shape), dtype)
            for index, (shape, dtype) in enumerate(exchange.received)
        )

    def send_meta(engine: Any, buffer: tuple[Tensor, ...], recv_stage: int) -> None:  # noqa: ARG001
        sent = tuple((tensor.shape, tensor.dtype) for tensor in buffer)
        assert sent == exchange.sent, f"this stage sends {sent}, the next is traced with {exchange.sent}"

    # Module.to replaces fake parameters by swapping whole tensors, which hooks forbid; real ones get `.data`.
    yield patch("torch.utils.swap_tensors", take_data)
    # A tensor written out as a number (torch.tensor([0.5])) keeps it, in the dtype that it was written in,
    # and `detach` answers from there: as a parameter it would be fp32 again after each cast, and one such is
    # enough for ZeRO to flatten all of a stage's weights to fp32. A weight has no value that outlasts a step.
    yield register_module_parameter_registration_hook(forget_value)
    # ZeRO-3 compares the order of its modules with rank 0's (zero/utils.py:80, :97): ranks are alike.
    yield patch.object(zero_utils, "assert_lst_len_same_as_other_ranks", lambda _: None)
    yield patch.object(zero_utils, "get_lst_from_rank0", list)
    # A stage learns from its neighbour's first message what it will receive (pipe/engine.py:977).
    yield patch.object(PipelineEngine, "_recv_tensor_meta", receive_meta)
    yield patch.object(PipelineEngine, "_send_tensor_meta", send_meta)
