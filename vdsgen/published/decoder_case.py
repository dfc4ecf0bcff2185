"""A row about a decoder, expressed: its layers, the engine's settings, and what its trainer keeps."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from vdsgen.cost.layer_bytes import layer_bytes
from vdsgen.cost.settings import Settings
from vdsgen.published.decoder import Decoder, Style
from vdsgen.published.decoder_profile import decoder_geometry, decoder_profile
from vdsgen.published.decoder_row import decode
from vdsgen.published.notes import Facts
from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.recipes import (
    APEX_FP16,
    APEX_FP16_FIRST_STEP,
    DISTRIBUTED_OPTIMIZER,
    FSDP,
    MIXED_PRECISION_CORE,
    Recipe,
)
from vdsgen.published.row import Row
from vdsgen.published.stages import Boundary, Layers, Stage
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.profile import ModelProfile

Trainer = Literal["deepspeed", "megatron-2021", "megatron-core", "fsdp"]
BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default of reduce_bucket_size and allgather_bucket_size."""
STYLES: dict[Trainer, Style] = {
    "deepspeed": "megatron-2021",
    "megatron-2021": "megatron-2021",
    "megatron-core": "megatron-core",
    "fsdp": "torch",
}
BOUNDARIES: dict[Trainer, Boundary] = {
    "deepspeed": "sharded",
    "megatron-2021": "kept",
    "megatron-core": "freed",
    "fsdp": "freed",
}


class DecoderCase(NamedTuple):
    """What the cost functions are asked about one row."""

    trainer: Trainer
    model: Decoder
    profile: ModelProfile
    geometry: Geometry
    layers: Layers
    settings: Settings
    recipe: Recipe | None
    """None: DeepSpeed's own states (vdsgen/cost/model_states.py)."""
    sharing_ranks: int
    """Ranks that share optimizer states."""
    blocks: tuple[int, ...]
    """Blocks of each stage."""
    measured_stages: tuple[int, ...]
    """Whose memory was read; of several, the largest."""
    context_parallel: int
    virtual_stages: int
    sequence: int
    """Of one sample, over all ranks."""

    def stage(self, index: int) -> Stage:
        return Stage(index, self.blocks[index], index == 0, index == len(self.blocks) - 1)


def express_decoder(row: Row, facts: Facts) -> DecoderCase:
    """Raises CannotExpressError with what the row lacks, or what has no counterpart."""
    trainer = _trainer(row)
    dtype = _dtype(row)
    if row.trainable.lower() not in ("", "full"):
        raise CannotExpressError(f"decoders with {row.trainable} training are not traced")
    if row.offload.lower() not in ("", "none"):
        raise CannotExpressError(f"offload: {row.offload}")
    selective, interval = _checkpointing(row)
    model, sequence = decode(row, facts, STYLES[trainer])
    if selective and trainer == "fsdp":
        interval = 1
    settings = _settings(row, facts, trainer, dtype, interval)
    size = (settings.micro_batch_size, sequence)
    profile = decoder_profile(
        model, *size, selective=selective and trainer != "fsdp", context_parallel=facts.context_parallel
    )
    if model.tied and settings.pipeline_parallel_size == 1:
        profile = _without_head(profile)
    geometry = decoder_geometry(sequence)
    each = layer_bytes(profile, geometry, settings.micro_batch_size, dtype)
    logits = settings.micro_batch_size * sequence * model.vocab // model.tensor_parallel * 2
    kept = _selected_bytes(model, settings.micro_batch_size * sequence) if selective and interval else 0
    stages = settings.pipeline_parallel_size
    if facts.stage is not None and facts.stage >= stages:
        raise CannotExpressError(f"stage {facts.stage} of {stages}")
    measured = range(stages) if facts.stage is None else [facts.stage]
    if facts.last_rank:
        measured = [stages - 1]
    return DecoderCase(
        trainer=trainer,
        model=model,
        profile=profile,
        geometry=geometry,
        layers=Layers(each[0], each[1], each[-1], logits, kept),
        settings=settings,
        recipe=_recipe(trainer, row, facts),
        sharing_ranks=settings.data_parallel_size * facts.context_parallel,
        blocks=tuple(_shared_out(model.layers, stages)),
        measured_stages=tuple(measured),
        context_parallel=facts.context_parallel,
        virtual_stages=facts.virtual_stages,
        sequence=sequence * facts.context_parallel,
    )


def _trainer(row: Row) -> Trainer:
    text = f"{row.source} {row.model} {row.optimizer} {row.notes}".lower()
    if "pipelinemodule" in text or "deepspeed 3d=y" in text or "deepspeed 3d (" in row.table.lower():
        return "deepspeed"
    if "distributed optimizer" in text or ("megatron" in text and row.precision.lower().startswith("bf16")):
        return "megatron-core"
    if "fsdp" in text and row.whole("zero_stage") == 3:
        return "fsdp"
    if row.precision.lower() == "fp16" and ("megatron" in text or (row.whole("tp") or 1) > 1):
        return "megatron-2021"
    if row.precision.lower().startswith("fp8"):
        raise CannotExpressError("matrix products in fp8")
    raise CannotExpressError("nothing says which trainer's states it keeps")


def _dtype(row: Row) -> Dtype:
    name = row.precision.lower()
    if name.startswith(("fp8", "int8")):
        raise CannotExpressError(f"matrix products in {row.precision}")
    if "float8" in name:
        return "bf16"  # weights, gradients and what is saved stay in bf16; see seconds.py
    if "bf16" in name or "bfloat16" in name:
        return "bf16"
    if "fp16" in name or "float16" in name:
        return "fp16"
    raise CannotExpressError(f"precision {row.precision!r}" if name else "no precision")


def _checkpointing(row: Row) -> tuple[bool, int]:
    """(attention's scores only, blocks a segment)."""
    name = row.grad_ckpt.lower()
    if name.startswith("selective"):
        return True, 0
    if name == "none":
        return False, 0
    if name == "full":
        return False, 1
    raise CannotExpressError(f"checkpointing: {row.grad_ckpt}" if name else "no grad_ckpt")


def _settings(row: Row, facts: Facts, trainer: Trainer, dtype: Dtype, interval: int) -> Settings:
    tensor, stages = row.whole("tp") or 1, row.whole("pp") or 1
    micro = row.whole("micro_batch")
    if micro is None:
        raise CannotExpressError("no micro_batch")
    gpus = row.whole("gpus")
    if row.whole("dp") is None and gpus is None:
        raise CannotExpressError("neither dp nor gpus")
    data = row.whole("dp") or max(1, (gpus or 1) // (tensor * stages * facts.context_parallel))
    batch = row.whole("global_batch")
    if facts.micro_batches and batch and batch % (facts.micro_batches * data) == 0:
        micro = batch // (facts.micro_batches * data)  # a step's time tells that these two are right
    steps = facts.micro_batches or max(1, (batch or micro * data) // (micro * data))
    zero = {"deepspeed": row.whole("zero_stage") or 0, "megatron-2021": 0, "megatron-core": 1, "fsdp": 3}[
        trainer
    ]
    if zero >= 2 and stages > 1:
        raise CannotExpressError("weights sharded over ranks in a pipeline, which DeepSpeed refuses")
    sums: Dtype = "fp32" if zero and dtype == "bf16" else dtype
    return Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=data,
        zero_stage=zero,
        micro_batch_size=micro,
        gradient_accumulation_steps=steps,
        activation_checkpoint_interval=interval,
        dtype=dtype,
        gradient_accumulation_dtype=sums,
        reduce_bucket_elements=BUCKET_ELEMENTS,
        allgather_bucket_elements=BUCKET_ELEMENTS,
    )


def _recipe(trainer: Trainer, row: Row, facts: Facts) -> Recipe | None:
    if trainer == "deepspeed":
        return None
    if trainer == "megatron-2021":
        return APEX_FP16_FIRST_STEP if facts.first_iteration else APEX_FP16
    if trainer == "fsdp":
        return FSDP
    shares = row.whole("zero_stage") != 0 or re.search(r"distributed optimizer", row.optimizer.lower())
    return DISTRIBUTED_OPTIMIZER if shares else MIXED_PRECISION_CORE


def _without_head(profile: ModelProfile) -> ModelProfile:
    """One stage holds both ends, so a tied projection is the embedding, counted there."""
    head = profile.layer_types["final"]
    shapes = tuple(shape for shape in head.parameter_shapes if len(shape) == 1)
    own = sum(shape[0] for shape in shapes)
    lone = head.model_copy(
        update={"parameters": own, "trainable_parameters": own, "parameter_shapes": shapes}
    )
    return profile.model_copy(update={"layer_types": {**profile.layer_types, "final": lone}})


def _selected_bytes(model: Decoder, tokens: int) -> int:
    """torchtitan's selective checkpointing by operators keeps attention's output and every other product's:
    query, value, gate and down (torchtitan/models/parallelize, _apply_ac_to_transformer_block, "op")."""
    width = 3 * model.hidden + model.kv_heads * model.head_size + model.ffn
    return 2 * tokens * width + 4 * tokens * model.heads


def _shared_out(layers: int, stages: int) -> list[int]:
    """As equal as can be, later stages one more."""
    return [(index + 1) * layers // stages - index * layers // stages for index in range(stages)]
