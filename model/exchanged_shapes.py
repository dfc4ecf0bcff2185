"""The shapes of what pipeline stages send each other, where micro-batches come in several sizes.

DeepSpeed's engine sends a description of the first micro-batch's tensors ahead of them, and takes all later
ones to be alike (pipe/engine.py:1038, 1123, 1178, 0.19.8). `dynamic_shape=True` sends a description ahead of
every one: a message more each time, and the receiver waits on the device to read it. Here descriptions are
sent once for each size of clips: all ranks know which size each micro-batch has.

Buffers are the engine's pool, with one correction: it takes a buffer that is large enough whatever its
element type (pipe/engine.py:1284), so that gradients, counted without the integer tensors of a tuple,
could arrive in one of another type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from deepspeed.runtime.pipe import schedule

Described = tuple[tuple[tuple[int, ...], torch.dtype], ...] | tuple[tuple[int, ...], torch.dtype]
"""Shape and element type of each tensor of a tuple, or of one tensor."""


class ExchangedShapes:
    """Of one rank. `step_begins` and `forget` are called between steps, on all ranks alike."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._sizes: Sequence[int] = (0,)
        self._sent: set[int] = set()
        """Sizes whose description the next stage has."""
        self._received: dict[int, Described] = {}
        self._sends = self._receives = 0
        """Micro-batches of this step so far."""
        self._pool: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        engine._allocate_or_extend_buffers = self._buffer

    def step_begins(self, sizes: Sequence[int]) -> None:
        """`sizes`: one for the whole step, or one a micro-batch in order."""
        self._sizes = sizes
        self._sends = self._receives = 0

    def forget(self) -> None:
        """Before and after what is no training step: it has shapes of its own."""
        self._engine.reset_activation_shape()
        self._sizes = (0,)
        self._sends = self._receives = 0
        self._sent.clear()
        self._received.clear()
        self._pool.clear()

    def handlers(self) -> dict[type[Any], Callable[..., None]]:
        """For PipelineEngine._INSTRUCTION_MAP."""
        return {
            schedule.SendActivation: self._send,
            schedule.RecvActivation: self._receive,
            schedule.RecvGrad: self._receive_gradients,
        }

    def _buffer(self, place: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """In the place of PipelineEngine._allocate_or_extend_buffers."""
        elements = math.prod(shape)
        held = self._pool.get((place, dtype))
        if held is None or held.numel() < elements:
            held = torch.zeros(elements, dtype=dtype, device=self._engine.device)
            self._pool[place, dtype] = held
        return held[:elements].view(tuple(shape))

    def _size(self, micro_batch: int) -> int:
        return self._sizes[micro_batch if len(self._sizes) > 1 else 0]

    def _send(self, engine: Any, buffer_id: int) -> None:
        size = self._size(self._sends)
        self._sends += 1
        engine.first_output_send = size not in self._sent
        self._sent.add(size)
        engine._exec_send_activations(buffer_id)

    def _receive(self, engine: Any, buffer_id: int) -> None:
        size = self._size(self._receives)
        self._receives += 1
        known = self._received.get(size)
        engine.pipe_recv_buf = None if known is None else self._buffers(known)
        engine._exec_recv_activations(buffer_id)
        if known is None:
            self._received[size] = _described(engine.pipe_recv_buf)

    def _buffers(self, described: Any) -> Any:
        """As pipe/engine.py:982 and 996 make them from a description."""
        if isinstance(described[1], torch.dtype):
            return self._buffer(0, *described)
        return tuple(self._buffer(place, *each) for place, each in enumerate(described))

    def _receive_gradients(self, engine: Any, buffer_id: int) -> None:
        # Made again from the outputs that the gradients are of; memory is the engine's pool, as before.
        engine.grad_layer = None
        engine._exec_recv_grads(buffer_id)


def _described(buffers: Any) -> Described:
    if isinstance(buffers, torch.Tensor):
        return tuple(buffers.shape), buffers.dtype
    return tuple((tuple(buffer.shape), buffer.dtype) for buffer in buffers)
