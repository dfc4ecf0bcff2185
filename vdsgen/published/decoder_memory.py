"""The peak of a decoder's tensors on the GPUs that a row was read from."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.model_states import model_states
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.published.decoder_case import BOUNDARIES, DecoderCase
from vdsgen.published.recipes import FSDP_GATHERED_BYTES, FSDP_REDUCED_BYTES
from vdsgen.published.stages import Stage, activations


def tensor_bytes(case: DecoderCase) -> float:
    """What `torch.cuda.max_memory_allocated` would say, of the fullest stage that was measured."""
    return max(_stage_bytes(case, case.stage(index)) for index in case.measured_stages)


def _stage_bytes(case: DecoderCase, stage: Stage) -> float:
    """The largest of three moments: a step's first backward (no gradients yet, the pipeline full), a later
    one, and the optimizer step."""
    held = activations(
        stage, case.layers, case.settings, BOUNDARIES[case.trainer], case.model.tensor_parallel
    )
    states = _states(case, stage)
    beside = held.backward_bytes + held.buffer_bytes + _kept_by_kernels(case)
    # The first backward's micro-batch is gone when all gradients are there.
    later = max(1, min(held.in_flight, case.settings.gradient_accumulation_steps - 1))
    return max(
        states.running - states.created + held.in_flight * held.stash_bytes + beside,
        states.running + later * held.stash_bytes + beside,
        states.stepping + held.buffer_bytes,
    )


class _States(NamedTuple):
    """Bytes of one stage's model states."""

    running: float
    """While micro-batches run, gradients in full."""
    created: float
    """What of these the step's first backward creates."""
    stepping: float


def _states(case: DecoderCase, stage: Stage) -> _States:
    sizes = StageSizes.of(case.profile, _pipeline_layers(case, stage))
    if case.recipe is None:
        engine = model_states(sizes, case.settings)
        held = engine.held_bytes + _engine_default_bytes(case, sizes)
        return _States(
            running=held + engine.communication_bytes,
            created=engine.gradients_bytes,
            stepping=held + engine.workspace_bytes,
        )
    recipe = case.recipe
    return _States(
        running=recipe.running(sizes.parameters, case.sharing_ranks) + _gathered_bytes(case),
        created=sizes.parameters * recipe.created,
        stepping=recipe.stepping(sizes.parameters, case.sharing_ranks),
    )


def _engine_default_bytes(case: DecoderCase, sizes: StageSizes) -> int:
    """What the engine's defaults hold and plans switch off (vdsgen/cost/engine_defaults.py).

    contiguous_gradients at stage 1: a bucket from the first backward on, in a pipeline a second one, and this
    rank's gradients copied once more (zero/stage_1_and_2.py:963-968, :2192). BF16_Optimizer without
    immediate_grad_update: every bf16 gradient (bf16_optimizer.py:715).
    """
    settings = case.settings
    trained = sizes.trainable_parameters
    if settings.zero_stage == 0:
        return 0
    if engine_optimizer(settings) == "BF16_Optimizer":
        return 2 * trained
    buckets = 2 if settings.pipeline_parallel_size > 1 else 1
    return 2 * (buckets * settings.reduce_bucket_elements + trained // settings.data_parallel_size)


def _pipeline_layers(case: DecoderCase, stage: Stage) -> range:
    start = 0 if stage.first else 1 + sum(case.blocks[: stage.number])
    stop = 1 + sum(case.blocks[: stage.number + 1]) + stage.last
    return range(start, stop)


def _kept_by_kernels(case: DecoderCase) -> int:
    """Transformer Engine keeps a placeholder gradient in half precision for each shape of weight
    (transformer_engine/pytorch/module/base.py, get_dummy_wgrad); Megatron keeps one buffer that sequences are
    gathered into (megatron/core/utils.py, GlobalMemoryBuffer)."""
    if case.trainer != "megatron-core":
        return 0
    shapes = {shape for shape in case.profile.layer_types["block"].parameter_shapes if len(shape) == 2}
    gathered = case.layers.block.output * case.model.tensor_parallel if case.model.sequence_parallel else 0
    return 2 * sum(prod(shape) for shape in shapes) + gathered


def _gathered_bytes(case: DecoderCase) -> int:
    if case.trainer != "fsdp":
        return 0
    block = case.profile.layer_types["block"].parameters
    head = case.profile.layer_types["final"].parameters
    return max(block, head) * FSDP_REDUCED_BYTES + (block + max(block, head)) * FSDP_GATHERED_BYTES
