"""Traces one pipeline stage of a rendered plan, in this process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.pipeline import Batch
from vdsgen.profile.kernels import hidden_temporary_bytes
from vdsgen.profile.live_bytes import HOST, LiveBytes
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.geometry import TrainedModel
from vdsgen.spec.run import Layout, layout_of
from vdsgen.spec.training import Lora
from vdsgen.verify.exchange import empty_batch, exchange_of
from vdsgen.verify.fake_rank import join_fake_group, without_memory
from vdsgen.verify.figures import Phase, StageTrace
from vdsgen.verify.marks import COMMUNICATION, Marks
from vdsgen.verify.resident import peak_resident_bytes

PHASES: tuple[Phase, ...] = ("compute", "reduce", "step")

Report = Callable[[float], None]
"""Called with the share of the work that is done."""
JOINED, BUILT = 0.15, 0.35
"""Of the time that a stage takes, roughly: imports, and then the engine."""


def traced_micro_batches(layout: Layout, gradient_accumulation_steps: int) -> int:
    """As many as show the peak of any number: one more than a pipeline has in flight, so that a full pipeline
    runs beside all gradients; in one process two, the second beside the first one's gradients."""
    return min(gradient_accumulation_steps, layout.pipeline_parallel_size + 1)


def trace_stage(
    ds_config: Mapping[str, Any],
    model: TrainedModel,
    geometry: Geometry,
    stage: int,
    data_rank: int,
    report: Report,
    adapters: Lora | None = None,
    emulated_in: int | None = None,
) -> StageTrace:
    """Traces one rank of the stage, as a GPU would run it, on tensors without memory; `emulated_in` as of
    `hidden_temporary_bytes`.

    Once a process. Raises VdsgenError where the config contradicts the model.
    """
    layout = layout_of(ds_config)
    # Ranks that share blocks hold equally much: the first of them stands for all. Ranks that share samples
    # are data ranks to the engine.
    neighbours = stage * layout.sequence_data_parallel_size + data_rank
    join_fake_group(neighbours * layout.tensor_parallel_size, layout.world_size)
    gc.freeze()  # what imports left behind need not be searched each time the engine collects garbage
    report(JOINED)
    return trace_without_memory(ds_config, model, geometry, stage, report, adapters, emulated_in)


def trace_without_memory(
    ds_config: Mapping[str, Any],
    model: TrainedModel,
    geometry: Geometry,
    stage: int,
    report: Report,
    adapters: Lora | None = None,
    emulated_in: int | None = None,
) -> StageTrace:
    """The same for the rank that this process is in the fake group."""
    layout = layout_of(ds_config)
    micro = int(ds_config["train_micro_batch_size_per_gpu"])
    books = LiveBytes(partial(hidden_temporary_bytes, emulated_in=emulated_in))
    rows = own_rows(geometry, layout.sequence_parallel_size)
    exchange = exchange_of(model, rows, micro, layout.dtype, layout.partition, stage)
    with without_memory(books, exchange):
        return trace_rank(ds_config, model, geometry, stage, books, report, adapters)


def trace_rank(
    ds_config: Mapping[str, Any],
    model: TrainedModel,
    geometry: Geometry,
    stage: int,
    books: LiveBytes,
    report: Report,
    adapters: Lora | None = None,
) -> StageTrace:
    """Builds this rank's engine as the training entrypoint does, trains two steps, and gives what `books`,
    which must be active, have of the second. The first has one micro-batch: it only makes the optimizer's
    states.
    """
    began = time.perf_counter()
    layout = layout_of(ds_config)
    micro = int(ds_config["train_micro_batch_size_per_gpu"])
    micro_batches = traced_micro_batches(layout, int(ds_config["gradient_accumulation_steps"]))
    training = build_engine(capped(ds_config, layout, micro_batches), model, geometry, 0, adapters)
    build_peak = books.peak_bytes
    marks = Marks(training, books)
    sharing = layout.sequence_parallel_size
    batches = empty_batches(model, geometry, micro, micro_batches + 1, report, sharing)
    set_micro_batches(training, 1)
    training.train_step(batches)
    set_micro_batches(training, micro_batches)
    marks.claim_states()
    books.forget_peaks()
    with books.phase("compute"):
        training.train_step(batches)
    peaks = {phase: books.peak_of(phase) for phase in PHASES}
    host = max(books.peak_of(phase, owner=HOST) for phase in PHASES)
    states = sum(marks.states[name] for name in ("parameters", "gradients", "optimizer"))
    return StageTrace(
        stage=stage,
        data_ranks=(training.sequence_data_parallel_rank,),
        layers=_layers(training, layout, stage),
        optimizer_class=type(training.engine.optimizer).__name__,
        micro_batches=micro_batches,
        parameters_bytes=marks.states["parameters"],
        gradients_bytes=marks.states["gradients"],
        optimizer_bytes=marks.states["optimizer"],
        activations_bytes=books.peak_of("compute", owner=""),
        workspace_bytes=max(0, peaks["reduce"] - states, peaks["step"] - states),
        communication_bytes=books.peak_of("compute", owner=COMMUNICATION),
        host_bytes=host,
        peak_bytes=max(peaks.values()),
        peak_phase=max(PHASES, key=lambda phase: peaks[phase]),
        build_peak_bytes=max(0, build_peak - marks.states["host"]),  # those are the host's from the start
        seconds=time.perf_counter() - began,
        resident_bytes=peak_resident_bytes(),
    )


def capped(ds_config: Mapping[str, Any], layout: Layout, micro_batches: int) -> dict[str, Any]:
    """The same engine with fewer micro-batches a step."""
    micro = int(ds_config["train_micro_batch_size_per_gpu"])
    return {
        **ds_config,
        "gradient_accumulation_steps": micro_batches,
        "train_batch_size": micro * micro_batches * layout.data_parallel_size,
    }


def set_micro_batches(training: TrainingEngine, count: int) -> None:
    """Of the engine's next step. It looks for the last of them by counting all that it ever ran
    (engine.py, is_gradient_accumulation_boundary), so the count begins anew."""
    engine = training.engine
    engine.micro_steps = 0
    engine.set_train_batch_size(engine.train_micro_batch_size_per_gpu() * count * engine.dp_world_size)


def empty_batches(
    model: TrainedModel,
    geometry: Geometry,
    micro_batch_size: int,
    count: int,
    report: Report,
    sharing: int = 1,
) -> Iterator[Batch]:
    """`count` micro-batches as one of `sharing` ranks that share samples trains on them. Keeps none itself:
    the loader's are host memory, and here, where the device is the host, one that were kept would count as
    the device's."""
    rows = own_rows(geometry, sharing)
    for index in range(count):
        report(BUILT + (1 - BUILT) * index / count)
        yield empty_batch(model, rows, micro_batch_size)


def own_rows(geometry: Geometry, sharing: int) -> Geometry:
    """What each of `sharing` ranks that share samples has of a clip."""
    return geometry._replace(
        latent_height=geometry.latent_height // sharing, patches=geometry.patches // sharing
    )


def _layers(training: TrainingEngine, layout: Layout, stage: int) -> tuple[int, int]:
    if training.pipelined:
        return layout.partition[stage], layout.partition[stage + 1]
    return 0, int(training.engine.module.depth)
