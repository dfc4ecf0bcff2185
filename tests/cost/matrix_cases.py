"""The matrix of engine modes that real engines are measured in: ZeRO stage, precision, pipeline, checkpoint
interval, offload and data ranks, around the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

from tests.cost.activation_cases import GEOMETRY, MODEL
from tests.cost.engine_cases import case_of, is_allowed
from vdsgen.cost import engine_defaults
from vdsgen.cost.settings import Settings
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.plan import Offload

PARTITIONS = {1: (0, 16), 2: (0, 8, 16), 4: (0, 4, 8, 12, 16)}
LAYOUTS = ((1, 1), (1, 2), (2, 1), (4, 1), (2, 2))
"""(stages, data ranks): at most four ranks."""
PRECISIONS: tuple[tuple[Dtype, Dtype], ...] = (("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16"))
MIXED: tuple[tuple[Dtype, Dtype], ...] = (("bf16", "fp32"), ("fp16", "fp32"))
"""Half precision with fp32 sums; activations do not differ."""
INTERVALS = (0, 1, 3)
LONG_INTERVAL = 6
ONE_INTERVAL = 1
"""Where a case is about states alone, or about a refusal."""
OFFLOADS: tuple[tuple[Offload, Offload], ...] = (("none", "none"), ("cpu", "none"), ("cpu", "cpu"))
"""(optimizer, parameters)"""
BUCKET_ELEMENTS = 100_000
"""Two of the model's largest parameters, and a thirteenth of the model."""

SCALED_DEFAULTS = {
    "STAGE3_MAX_LIVE_PARAMETERS": 200_000,
    "STAGE3_MAX_REUSE_DISTANCE": 200_000,
    "STAGE3_PREFETCH_BUCKET_ELEMENTS": 100_000,
    "STAGE3_PARAM_PERSISTENCE_THRESHOLD": 1_000,
    "STAGE3_SUB_GROUP_ELEMENTS": 400_000,
}
"""Sizes of ZeRO-3 that stand to this model of 1.3 M parameters as the defaults do to one of 1 B."""


class MatrixCase(NamedTuple):
    """One engine mode."""

    settings: Settings

    @property
    def name(self) -> str:
        s = self.settings
        offload = {"none": "", "cpu": " offload optimizer"}[s.offload_optimizer]
        offload += {"none": "", "cpu": "+parameters"}[s.offload_parameters]
        offload += ", one micro-batch" if s.gradient_accumulation_steps == 1 else ""
        sums = "" if s.gradient_accumulation_dtype == s.dtype else f"+{s.gradient_accumulation_dtype}"
        return (
            f"{s.pipeline_parallel_size}x{s.data_parallel_size} zero{s.zero_stage} {s.dtype}{sums} "
            f"interval {s.activation_checkpoint_interval}{offload}"
        )


def matrix() -> list[MatrixCase]:
    """Every combination, those included that are refused."""
    cases = []
    for (stages, data), zero, precision, interval, offload in product(
        LAYOUTS, range(4), (*PRECISIONS, *MIXED), INTERVALS, OFFLOADS
    ):
        settings = Settings(
            pipeline_parallel_size=stages,
            data_parallel_size=data,
            zero_stage=zero,
            micro_batch_size=2,
            # One more than are ever in flight: a full pipeline runs backward beside full gradients.
            gradient_accumulation_steps=stages + 1,
            activation_checkpoint_interval=interval,
            dtype=precision[0],
            gradient_accumulation_dtype=precision[1],
            reduce_bucket_elements=BUCKET_ELEMENTS,
            allgather_bucket_elements=BUCKET_ELEMENTS,
            offload_optimizer=offload[0],
            offload_parameters=offload[1],
        )
        if interval == ONE_INTERVAL or _depends_on_interval(settings):
            cases.append(MatrixCase(settings))
    wanted = [case for case in cases if _is_wanted(case.settings)]
    return wanted + [MatrixCase(settings) for settings in _further()]


def _further() -> list[Settings]:
    """ZeRO-2 keeps a rank's gradients once where no second micro-batch comes. ZeRO-3 holds a recomputed
    segment's weights, here more than it may gather."""
    plain = Settings(
        pipeline_parallel_size=1,
        data_parallel_size=1,
        zero_stage=2,
        micro_batch_size=2,
        gradient_accumulation_steps=1,
        activation_checkpoint_interval=ONE_INTERVAL,
        dtype="bf16",
        gradient_accumulation_dtype="bf16",
        reduce_bucket_elements=BUCKET_ELEMENTS,
        allgather_bucket_elements=BUCKET_ELEMENTS,
    )
    segments = plain._replace(
        data_parallel_size=2,
        zero_stage=3,
        gradient_accumulation_steps=2,
        activation_checkpoint_interval=LONG_INTERVAL,
    )
    return [plain, plain._replace(offload_optimizer="cpu"), segments]


def _depends_on_interval(settings: Settings) -> bool:
    """What is measured at every interval, since activations decide: each precision, but fp16, whose tensors
    are as large as bf16's, in one process alone; with two data ranks bf16 alone. Of offload and of sums in
    another dtype one interval tells all in a pipeline."""
    precision = (settings.dtype, settings.gradient_accumulation_dtype)
    in_pipeline = settings.pipeline_parallel_size > 1
    if precision in MIXED or (in_pipeline and settings.offload_optimizer != "none"):
        return False
    if settings.data_parallel_size > 1:
        return settings.dtype == "bf16"
    return not (in_pipeline and settings.dtype == "fp16")


def _is_wanted(settings: Settings) -> bool:
    """All that is allowed; of what is refused, one precision and interval, or sums that are refused alone."""
    if is_allowed(settings):
        return True
    if settings.pipeline_parallel_size > 1 and settings.data_parallel_size > 1:
        return False
    mixed = settings.gradient_accumulation_dtype != settings.dtype
    plain = settings.dtype == "bf16" and not mixed
    alone = mixed and settings.zero_stage == 0 and settings.offload_optimizer == "none"
    return settings.activation_checkpoint_interval == ONE_INTERVAL and (plain or alone)


@contextmanager
def scaled_defaults(module: Any = engine_defaults) -> Iterator[None]:
    """While inside, the cost functions and `case_of` take ZeRO-3's sizes scaled to the measured model."""
    before = {name: getattr(module, name) for name in SCALED_DEFAULTS}
    try:
        for name, value in SCALED_DEFAULTS.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def worker_case(settings: Settings) -> dict[str, Any]:
    """A rank's input. To be called inside `scaled_defaults`."""
    plain = settings._replace(offload_optimizer="none", offload_parameters="none")
    case = case_of(settings if is_allowed(settings) else plain)
    zero = case["config"]["zero_optimization"]
    if settings.zero_stage == 3:
        threshold = engine_defaults.STAGE3_PARAM_PERSISTENCE_THRESHOLD
        zero["stage3_param_persistence_threshold"] = threshold
    if settings.offload_optimizer != "none":
        zero["offload_optimizer"] = {"device": settings.offload_optimizer}
    if settings.offload_parameters != "none":
        zero["offload_param"] = {"device": settings.offload_parameters}
    case["config"]["pipeline"] = {
        "stages": settings.pipeline_parallel_size,
        "partition": list(PARTITIONS[settings.pipeline_parallel_size]),
        "activation_checkpoint_interval": settings.activation_checkpoint_interval,
        "use_reentrant": False,
    }
    geometry = {name: getattr(GEOMETRY, name) for name in GEOMETRY._fields}
    return {**case, "model": MODEL.model_dump(), "geometry": geometry}
