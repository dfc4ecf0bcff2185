"""A diffusion model's row: its case, and what it answers."""

from __future__ import annotations

from vdsgen.cost.step import StepTimeModel
from vdsgen.published.compare import Predictions
from vdsgen.published.diffusion_case import DiffusionCase, express_diffusion
from vdsgen.published.diffusion_memory import rest_bytes, tensor_bytes
from vdsgen.published.notes import Facts
from vdsgen.published.pools import Hardware, hardware_of, memory_gib
from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row
from vdsgen.units import GIB


def diffusion_predictions(row: Row, facts: Facts) -> Predictions:
    """Raises CannotExpressError where the row has no counterpart."""
    case = _checkpointed_if_need_be(express_diffusion(row, facts), row)
    settings = case.settings
    samples = settings.micro_batch_size * settings.gradient_accumulation_steps * settings.data_parallel_size

    def memory() -> float:
        try:
            return rest_bytes(case) if facts.steady else tensor_bytes(case)
        except ValueError as error:
            raise CannotExpressError(str(error)) from None

    def seconds() -> float:
        if facts.compiled:
            raise CannotExpressError("compiled: fused kernels are not traced")
        try:
            return _step_seconds(case, hardware_of(row, settings.world_size, 1))
        except ValueError as error:
            raise CannotExpressError(str(error)) from None

    def measured() -> float | None:
        if row.number("sec_per_step") is not None:
            return row.numbers["sec_per_step"]
        rate = row.number("samples_per_s")
        return (
            None if rate is None else samples / (rate * (settings.data_parallel_size if facts.per_gpu else 1))
        )

    remark = "checkpointing is assumed: without it, it would not fit" if case.assumes_checkpointing else None
    communicators = 1 if settings.world_size > 1 else 0
    return Predictions(memory, communicators, seconds, measured, remark)


def _checkpointed_if_need_be(case: DiffusionCase, row: Row) -> DiffusionCase:
    """Where a row does not say whether blocks are checkpointed, they are if they would not fit otherwise.

    Raises CannotExpressError where both would fit.
    """
    if not case.assumes_checkpointing:
        return case
    capacity = memory_gib(row.gpu_type)
    try:
        if capacity is None or tensor_bytes(case) <= capacity * GIB:
            raise CannotExpressError("no grad_ckpt, and it would fit with and without")
    except ValueError as error:
        raise CannotExpressError(str(error)) from None
    return case._replace(settings=case.settings._replace(activation_checkpoint_interval=1))


def _step_seconds(case: DiffusionCase, hardware: Hardware) -> float:
    """Streamed weights come over the host's link in forward, in recomputation and in backward, while others
    compute: the later of the two decides."""
    model = StepTimeModel(case.profile, case.geometry, hardware.pool)
    step = model.step(case.settings, [0, len(case.profile.layers)]).step_seconds
    if case.trainer is None or not case.trainer.streamed:
        return step
    passes = 3 if case.settings.activation_checkpoint_interval else 2
    streamed = 2 * (case.profile.parameters - case.profile.trainable_parameters) * passes
    return max(step, streamed / hardware.host_bytes_per_second)
