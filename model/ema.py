"""An exponential moving average of the weights (EMA), which samples better than the weights it averages.

Each rank averages the fp32 weights that its optimizer steps: under ZeRO its share of them. For samples,
validation and export the two change places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.masters import (
    are_shared_out,
    master_tensors,
    shapes_of,
    slices_of,
    weights_from_masters,
)
from vdsgen.spec.training import Ema

PIECE_ELEMENTS = 2**24
"""Elements that change places, or go to the host, at a time: 64 MiB of fp32."""


class WeightAverage:
    """Made around a built engine, from the weights that it has then. Every method is collective."""

    def __init__(self, engine: Any, ema: Ema) -> None:
        self._engine = engine
        self._ema = ema
        self._steps = 0
        """Steps that have been averaged over."""
        self._arriving = Arriving()
        self.tensors: list[Tensor] = [self._copy_of(master) for master in self._masters()]
        """fp32 (n,), as `master_tensors`: the averages, but inside `in_place` the trained weights."""

    def _masters(self) -> list[Tensor]:
        return master_tensors(self._engine)

    def _copy_of(self, master: Tensor) -> Tensor:
        device = "cpu" if self._ema.device == "cpu" else master.device
        average = torch.empty(master.shape, dtype=torch.float32, device=device)
        if device == "cpu" and torch.cuda.is_available():
            average = average.pin_memory()
        return average.copy_(master)

    def after_step(self) -> None:
        """Call after each optimizer step."""
        self._steps += 1
        if self._steps % self._ema.every_steps:
            return
        weight = 1 - decay_at(self._ema, self._steps)
        for average, master in zip(self.tensors, self._masters(), strict=True):
            pieces = _pieces(average, master)
            if master.device != average.device:
                pieces = self._arriving.on_host(pieces)
            for old, new in pieces:
                old.lerp_(new.to(old.device, torch.float32), weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the averages. Nothing may be trained or saved there."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for average, master in zip(self.tensors, self._masters(), strict=True):
            for ours, theirs in _pieces(average, master):
                kept = theirs.to(ours.device, copy=True)
                theirs.copy_(ours)
                ours.copy_(kept)
        weights_from_masters(self._engine)

    @property
    def is_on_host(self) -> bool:
        """As asked for, or because the weights that it averages are there."""
        offload = getattr(self._engine.optimizer, "offload_optimizer", False)
        offload = offload or getattr(self._engine.optimizer, "cpu_offload", False)
        return self._ema.device == "cpu" or bool(offload)

    @property
    def is_shared_out(self) -> bool:
        return are_shared_out(self._engine)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: enough to go on, and to put the averaged parameters together again."""
        return {
            "steps": self._steps,
            "averages": self.tensors,
            "slices": [[tuple(one) for one in of_tensor] for of_tensor in slices_of(self._engine)],
            "shapes": shapes_of(self._engine),
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Goes on from `state`; from the present weights where there is none.

        Raises VdsgenError where the state is of another layout."""
        averages = self._masters() if state is None else state["averages"]
        if [tuple(one.shape) for one in averages] != [tuple(one.shape) for one in self.tensors]:
            raise VdsgenError(
                "the checkpoint's averaged weights (EMA) are shared out otherwise than this run's",
                remedy="resume with the rendered directory that the run was started with",
            )
        for own, saved in zip(self.tensors, averages, strict=True):
            own.copy_(saved)
        self._steps = 0 if state is None else int(state["steps"])


class Arriving:
    """Pieces of weights on their way to the host: while one is averaged, the next is copied. Page-locked
    memory, since a copy to other memory waits, at a tenth of the link's rate."""

    def __init__(self) -> None:
        self._room: list[Tensor] = []

    def on_host(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The same pairs, the second of each in the host's memory, in fp32, until the next is asked for."""
        before: tuple[Tensor, Tensor, Any] | None = None
        for place, (old, new) in enumerate(pieces):
            if len(self._room) < 2:
                self._room.append(torch.empty(PIECE_ELEMENTS, dtype=torch.float32, pin_memory=True))
            landing = self._room[place % 2][: new.numel()]
            landing.copy_(new, non_blocking=True)
            arrived = torch.get_device_module(new.device).current_stream().record_event()
            if before is not None:
                yield self._arrived(*before)
            before = (old, landing, arrived)
        if before is not None:
            yield self._arrived(*before)

    @staticmethod
    def _arrived(old: Tensor, landing: Tensor, arrived: Any) -> tuple[Tensor, Tensor]:
        arrived.synchronize()
        return old, landing


def decay_at(ema: Ema, step: int) -> float:
    """What is kept of the average when step `step` (from 1) is averaged in: `decay` for each step since the
    last time. With warm-up at most (1 + step) / (10 + step) for each, as TensorFlow's
    ExponentialMovingAverage with num_updates: the first weights are soon forgotten."""
    decay = min(ema.decay, (1 + step) / (10 + step)) if ema.warmup else ema.decay
    return float(decay**ema.every_steps)


def _pieces(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same stretches of two flat tensors."""
    for first in range(0, one.numel(), PIECE_ELEMENTS):
        stretch = slice(first, first + PIECE_ELEMENTS)
        yield one[stretch], other[stretch]
