"""Tells the books what the engine is doing: which phase it is in, and whose tensors it makes.

DeepSpeed's files are of 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from itertools import chain
from typing import Any

import torch

from vdsgen.model.engine import TrainingEngine
from vdsgen.profile.engine_bytes import (
    bucket_tensors,
    gradient_tensors,
    host_tensors,
    optimizer_tensors,
    own_offloaded_activations,
    owners,
    parameter_tensors,
)
from vdsgen.profile.live_bytes import HOST, LiveBytes, storage_bytes

STATES, COMMUNICATION = "states", "communication"
"""Owners in the books; activations and temporaries are nobody's."""

_BUCKETS = ("setup_buckets",)  # of a micro-batch, at ZeRO-1 and 2 (zero/stage_1_and_2.py:3256)
_OWN_GRADIENTS = (
    "copy_grads_in_partition",  # ZeRO-2: this rank's share gets a buffer (zero/stage_1_and_2.py:2142)
    "_build_compact_grad_partition_buffer",  # the same in fp32 (:1268)
)
_ON_HOST = ("async_accumulate_grad_in_cpu_via_gpu",)
"""Where offload makes a buffer in host memory for gradients that wait for further micro-batches (:1825)."""


class Marks:
    """Put around a built engine. Device and host are told apart by owner: on this processor they are one.
    `states` and `live_bytes` are of the start of the last reduction, when all
    gradients are there."""

    def __init__(self, training: TrainingEngine, books: LiveBytes) -> None:
        self.states: dict[str, int] = {}
        self._engine = training.engine
        self._compressor = training.compressor
        self._average = training.average
        self._books = books
        self._reduces_at_once = bool(self._engine.zero_optimization_partition_gradients())
        self._mark_phases(training.pipelined)
        self._mark_owners()

    def claim_states(self) -> None:
        """Everything that is a state or a bucket now gets its owner in the books."""
        engine, books = self._engine, self._books
        books.claim(host_tensors(engine), HOST)
        books.claim(bucket_tensors(engine.optimizer), COMMUNICATION)
        books.claim(parameter_tensors(engine), STATES)
        books.claim(optimizer_tensors(engine), STATES)
        books.claim(gradient_tensors(engine), STATES)
        books.claim(self._errors(), STATES)
        books.claim(self._averages(on_host=True), HOST)
        books.claim(self._averages(on_host=False), STATES)

    def _errors(self) -> list[torch.Tensor]:
        """What compressing gradients has lost: a state that outlives the step, as moments are."""
        return [] if self._compressor is None else list(chain.from_iterable(self._compressor.errors))

    def _averages(self, *, on_host: bool) -> list[torch.Tensor]:
        """Of the weights: a state beside those that the optimizer steps, or in host memory."""
        average = self._average
        return average.tensors if average is not None and average.is_on_host == on_host else []

    def _note_states(self) -> None:
        self.states = owners(self._engine)
        self.states["optimizer"] += storage_bytes([*self._errors(), *self._averages(on_host=False)])
        self.states["host"] += storage_bytes(self._averages(on_host=True))
        if self._reduces_at_once:
            # What waits for its reduction is on its way, and no state yet.
            kept = self._books.owned(gradient_tensors(self._engine), STATES)
            self.states["gradients"] = storage_bytes(kept)
        else:
            self.claim_states()

    def _mark_phases(self, pipelined: bool) -> None:
        engine = self._engine

        def reduce(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def marked(*args: Any, **kwargs: Any) -> Any:
                self._note_states()
                with self._books.phase("reduce"):
                    return original(*args, **kwargs)

            return marked

        def step(original: Callable[..., Any]) -> Callable[..., Any]:
            return _inside(original, lambda: self._books.phase("step"))

        if pipelined:
            from deepspeed.runtime.pipe import schedule

            handlers = engine._INSTRUCTION_MAP
            engine._INSTRUCTION_MAP = {
                **handlers,
                schedule.ReduceGrads: reduce(handlers[schedule.ReduceGrads]),
                schedule.OptimizerStep: step(handlers[schedule.OptimizerStep]),
            }
        else:
            engine.allreduce_gradients = reduce(engine.allreduce_gradients)
            engine._take_model_step = step(engine._take_model_step)

    def _mark_owners(self) -> None:
        optimizer = self._engine.optimizer
        own_offloaded_activations(self._engine, self._books)
        own: tuple[str, ...] = _OWN_GRADIENTS
        on_host: tuple[str, ...] = ()
        if getattr(optimizer, "cpu_offload", False):
            # The share's gradients pass through, to the host; what stays are sums in fp32.
            own, on_host = _OWN_GRADIENTS[1:], _ON_HOST
        for names, owner in ((_BUCKETS, COMMUNICATION), (own, STATES), (on_host, HOST)):
            for name in names:
                if hasattr(optimizer, name):
                    setattr(optimizer, name, self._owned(getattr(optimizer, name), owner))
        if hasattr(optimizer, "parameter_offload"):
            # ZeRO-3 gathers what a module needs, and ahead of that (partitioned_param_coordinator.py:310).
            coordinator = optimizer.parameter_offload.get_param_coordinator()
            coordinator.fetch_sub_module = self._owned(coordinator.fetch_sub_module, COMMUNICATION)
            # ZeRO++'s second copy is made of what a module lets go (partition_parameters.py:1900).
            coordinator.release_sub_module = self._owned(coordinator.release_sub_module, STATES)
        if not self._reduces_at_once:
            for parameter in self._engine.module.parameters():
                # After the engine's own hooks: what they leave is a gradient that stays.
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._keep_gradient)

    def _owned(self, function: Callable[..., Any], owner: str) -> Callable[..., Any]:
        return _inside(function, lambda: self._books.owner(owner))

    def _keep_gradient(self, parameter: torch.Tensor) -> None:
        """As the model's, or added up in another dtype (zero/stage_1_and_2.py:1237)."""
        kept = (parameter.grad, getattr(parameter, "grad_accum", None))
        self._books.claim([gradient for gradient in kept if gradient is not None], STATES)


def _inside(
    function: Callable[..., Any], context: Callable[[], AbstractContextManager[None]]
) -> Callable[..., Any]:
    @wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return marked
