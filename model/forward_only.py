"""Batches through a pipeline's stages without training: predictions, and losses of held-out clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed import comm as dist
from torch import Tensor

from vdsgen.model.exchanged_shapes import ExchangedShapes
from vdsgen.model.pipeline import Batch, LossFunction


class ForwardOnly:
    """One engine's `eval_batch`; shapes of tensors that stages exchange are forgotten before and after."""

    def __init__(self, engine: Any, shapes: ExchangedShapes) -> None:
        self._engine = engine
        self._shapes = shapes

    def losses(self, batches: Iterator[Batch], micro_batches: int, loss: LossFunction) -> None:
        """With `loss` in the place of the training loss."""
        engine = self._engine
        self._shapes.forget()
        engine.total_loss = None
        trained, engine.module.loss_fn = engine.module.loss_fn, loss
        try:
            with self._untold():
                engine.eval_batch(batches, num_micro_batches=micro_batches, bcast_loss=False)
        finally:
            engine.module.loss_fn = trained
        self._shapes.forget()
        engine.total_loss = None  # as after predicting

    def predict(self, inputs: tuple[Tensor, ...]) -> Tensor:
        engine = self._engine
        self._shapes.forget()
        engine.total_loss = None  # the engine adds this forward's output to it (pipe/engine.py:777)
        noised = inputs[0]
        with self._untold():
            _, outputs = engine.eval_batch(
                iter([(inputs, noised)]),
                return_logits=True,
                compute_loss=False,
                reduce_output=None,
                num_micro_batches=1,
            )
        self._shapes.forget()
        engine.total_loss = None
        return self._from_last_stage(outputs if engine.is_last_stage() else None)

    @contextmanager
    def _untold(self) -> Iterator[None]:
        """DeepSpeed's monitors hear nothing: the engine would tell them a loss even where none is computed
        (pipe/engine.py:472)."""
        monitor = self._engine.monitor
        enabled, monitor.enabled = monitor.enabled, False
        try:
            yield
        finally:
            monitor.enabled = enabled

    def _from_last_stage(self, outputs: Tensor | None) -> Tensor:
        """The prediction (B, C, T, H, W) float32 on every stage; its channels need not be the input's."""
        engine = self._engine
        where: dict[str, Any] = {
            "src": engine.grid.stage_to_global(engine.num_stages - 1),
            "group": engine.grid.get_pipe_parallel_group(),
        }
        known = [0] * 5 if outputs is None else list(outputs.shape)
        shape = torch.tensor(known, device=torch.device(engine.device))
        dist.broadcast(shape, **where)
        # With patches of 1 the last layer's output is a permuted view; a broadcast sends memory as it lies.
        if outputs is None:
            prediction = torch.empty(shape.tolist(), device=torch.device(engine.device))
        else:
            prediction = outputs.contiguous()
        dist.broadcast(prediction, **where)
        return prediction
