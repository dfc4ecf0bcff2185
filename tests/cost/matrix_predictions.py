"""What the cost functions predict for the matrix's cases, beside what engines measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from tests.cost.activation_cases import GEOMETRY, MODEL, on_this_processor
from tests.cost.engine_cases import sizes_of
from tests.cost.matrix_cases import PARTITIONS, MatrixCase, matrix, scaled_defaults
from vdsgen.cost import activations, engine_defaults, gradients, memory, model_states
from vdsgen.cost.settings import Settings
from vdsgen.profile.trace import empty_layer, empty_tensors

MEASUREMENTS = Path(__file__).parent / "data" / "engine_matrix.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Cost(NamedTuple):
    """The cost functions, as they are or mutated."""

    engine_defaults: ModuleType = engine_defaults
    model_states: ModuleType = model_states
    gradients: ModuleType = gradients
    activations: ModuleType = activations
    memory: ModuleType = memory


class Bytes(NamedTuple):
    """One stage's bytes on the device, and on the host, as measured or as predicted."""

    parameters: int
    gradients: int
    optimizer: int
    running: int
    """Besides these, at the peak while micro-batches run: activations and communication buffers."""
    stepping: int
    """Besides these, at the peak of reduction and of the optimizer step."""
    host: int

    @property
    def states(self) -> int:
        return self.parameters + self.gradients + self.optimizer

    @property
    def step_peak(self) -> int:
        return self.states + self.stepping

    @property
    def peak(self) -> int:
        return self.states + max(self.running, self.stepping)


class Compared(NamedTuple):
    """One stage of one case."""

    case: MatrixCase
    stage: int
    optimizer: str
    predicted_optimizer: str
    measured: Bytes
    predicted: Bytes

    @property
    def place(self) -> str:
        return f"{self.case.name}, stage {self.stage}"


@cache
def measurements() -> dict[str, Any]:
    """By case's name: what `python -m tests.benchmarks.engine_matrix` wrote."""
    found: dict[str, Any] = json.loads(MEASUREMENTS.read_text())
    return found


def compared(cost: Cost = Cost(), known: dict[str, Any] | None = None) -> Iterator[Compared]:  # noqa: B008
    """Every stage of every case that the engine takes."""
    answers = measurements()["cases"] if known is None else known
    with scaled_defaults(cost.engine_defaults):
        for case in matrix():
            answer = answers.get(case.name)
            if answer is None or not allowed(case.settings, cost):
                continue
            for stage, bytes_ in enumerate(answer["stages"]):
                yield Compared(
                    case,
                    stage,
                    answer["optimizer"],
                    cost.model_states.engine_optimizer(case.settings),
                    measured(bytes_),
                    predicted(case.settings, stage, cost),
                )


def allowed(settings: Settings, cost: Cost = Cost()) -> bool:  # noqa: B008
    try:
        cost.model_states.engine_optimizer(settings)
    except ValueError:
        return False
    return True


def measured(stage: dict[str, int]) -> Bytes:
    """Host memory is what the engine owns there: it does not change over a step."""
    parts = [stage[f"{name}_bytes"] for name in ("parameters", "gradients", "optimizer")]
    beside = sum(parts) + stage["host_bytes"]
    return Bytes(
        *parts,
        running=stage["compute_peak_bytes"] - beside,
        stepping=max(stage["reduce_peak_bytes"], stage["step_peak_bytes"]) - beside,
        host=stage["host_bytes"],
    )


def predicted(settings: Settings, stage: int, cost: Cost = Cost()) -> Bytes:  # noqa: B008
    """To be called inside `scaled_defaults`."""
    start, stop = PARTITIONS[settings.pipeline_parallel_size][stage : stage + 2]
    states = cost.model_states.model_states(stage_sizes(start, stop), settings)
    growth = cost.gradients.gradient_growth(states, settings, trainable_parameters()[start:stop])
    momentary = [
        cost.model_states.momentary_bytes(settings, largest, sum(trainable_parameters()[start:stop]))
        for largest in largest_parameters()
    ]
    layers = cost.gradients.with_reduction(on_this_processor(DTYPES[settings.dtype]), momentary)
    activations = cost.activations.stage_activations(layers, settings, stage, start, stop, growth.by_layer)
    peaks = cost.memory.peak_moments(states, growth, activations, settings)
    return Bytes(
        states.parameters_bytes,
        states.gradients_bytes,
        states.optimizer_bytes,
        running=peaks.running_bytes - states.gradients_bytes,
        stepping=peaks.stepping_bytes - states.gradients_bytes,
        host=states.host_bytes,
    )


@cache
def stage_sizes(start: int, stop: int) -> model_states.StageSizes:
    return sizes_of([shape for shapes in layer_shapes()[start:stop] for shape in shapes])


@cache
def trainable_parameters() -> tuple[int, ...]:
    return tuple(sum(torch.Size(shape).numel() for shape in shapes) for shapes in layer_shapes())


@cache
def largest_parameters() -> tuple[int, ...]:
    return tuple(max(torch.Size(shape).numel() for shape in shapes) for shapes in layer_shapes())


@cache
def layer_shapes() -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Of the parameters of each pipeline layer."""
    by_kind = {}
    for kind in ("embed", "block", "final"):
        with empty_tensors():
            layer = empty_layer(MODEL, GEOMETRY, kind, torch.float32)  # type: ignore[arg-type]
        by_kind[kind] = tuple(tuple(parameter.shape) for parameter in layer.parameters())
    return (by_kind["embed"], *([by_kind["block"]] * MODEL.depth), by_kind["final"])
