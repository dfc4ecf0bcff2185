"""A decoder's row: its case, and what it answers."""

from __future__ import annotations

from vdsgen.published.compare import Predictions
from vdsgen.published.decoder_case import DecoderCase, express_decoder
from vdsgen.published.decoder_memory import tensor_bytes
from vdsgen.published.decoder_seconds import reported_flops, step_seconds
from vdsgen.published.notes import Facts
from vdsgen.published.pools import hardware_of
from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row

TERA = 1e12


def decoder_predictions(row: Row, facts: Facts) -> Predictions:
    """Raises CannotExpressError where the row has no counterpart."""
    case = express_decoder(row, facts)
    settings = case.settings
    samples = settings.micro_batch_size * settings.gradient_accumulation_steps * settings.data_parallel_size
    gpus = settings.world_size * case.model.tensor_parallel * case.context_parallel

    def seconds() -> float:
        if "float8" in row.precision.lower():
            raise CannotExpressError("matrix products in fp8")
        if facts.compiled:
            raise CannotExpressError("compiled: fused kernels are not traced")
        hardware = hardware_of(row, settings.world_size * case.context_parallel, case.model.tensor_parallel)
        try:
            return step_seconds(case, hardware)
        except ValueError as error:
            raise CannotExpressError(str(error)) from None

    def measured() -> float | None:
        if row.number("sec_per_step") is not None:
            return row.numbers["sec_per_step"]
        if row.number("samples_per_s") is not None:
            return samples / row.numbers["samples_per_s"]
        rate = row.numbers["tflops_per_gpu"] * TERA * gpus
        return reported_flops(case, facts.hardware_flops) / rate

    return Predictions(lambda: tensor_bytes(case), _communicators(case), seconds, measured)


def _communicators(case: DecoderCase) -> int:
    """Megatron's groups of more than one rank: tensor, data and context, pipeline, both of the model's
    together, and the first and last stage's embedding (megatron/mpu/initialize.py)."""
    tensor, stages = case.model.tensor_parallel, case.settings.pipeline_parallel_size
    groups = [
        tensor,
        case.sharing_ranks,
        stages,
        stages if tensor > 1 else 1,
        stages if case.model.tied else 1,
    ]
    return sum(size > 1 for size in groups)
