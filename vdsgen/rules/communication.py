"""Rules on how gradients are reduced."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal
from vdsgen.rules.rule import Change, Rule
from vdsgen.spec.compression import refusal

DTYPE = "/communication_data_type"
SEQUENCE_DTYPE = "/seq_parallel_communication_data_type"
PRESCALE = "/prescale_gradients"
FACTOR = "/gradient_predivide_factor"
OPERATION = "/gradient_allreduce_op"
SCATTER = "/zero_optimization/reduce_scatter"

DTYPES = ("fp16", "bf16", "fp32")
OPERATIONS = ("mean", "sum")


def _dtype_is_known(facts: Facts) -> str | None:
    dtype = facts.communication.dtype
    return f"communication_data_type is {dtype}" if dtype and dtype not in DTYPES else None


def _sequence_dtype_is_known(facts: Facts) -> str | None:
    dtype = facts.communication.sequence_parallel_dtype
    return f"seq_parallel_communication_data_type is {dtype}" if dtype and dtype not in DTYPES else None


def _operation_is_known(facts: Facts) -> str | None:
    operation = facts.communication.allreduce_op
    return None if operation is None or operation in OPERATIONS else f"gradient_allreduce_op is {operation}"


def _sums_at_stage_3(facts: Facts) -> str | None:
    if facts.communication.allreduce_op != "sum" or facts.zero_stage != 3:
        return None
    return "gradient_allreduce_op is sum at ZeRO stage 3"


def _sums_with_zenflow(facts: Facts) -> str | None:
    if facts.communication.allreduce_op != "sum" or not facts.zenflow.present or facts.zero_stage == 3:
        return None
    return "gradient_allreduce_op is sum with ZenFlow"


def _sums_with_deepcompile(facts: Facts) -> str | None:
    if facts.communication.allreduce_op != "sum" or not facts.compile.deepcompile:
        return None
    return (
        None
        if facts.zero_stage == 3 or facts.zenflow.present
        else "gradient_allreduce_op is sum with DeepCompile"
    )


def _divides_by_zero(facts: Facts) -> str | None:
    communication = facts.communication
    if communication.predivide_factor != 0 or communication.prescale_gradients is not False:
        return None
    if communication.allreduce_op != "mean" or not (facts.zero_stage == 0 or facts.uses_bf16_optimizer):
        return None
    return f"gradient_predivide_factor is 0 at ZeRO stage {facts.zero_stage}"


def _scatters_means(facts: Facts) -> bool:
    """Whether stage 2 or 3 reduce-scatters averages; stage 1 all-reduces whatever is set."""
    if facts.zero_stage not in (2, 3) or not facts.zero.reduce_scatter:
        return False
    return facts.zero_stage == 3 or facts.communication.allreduce_op == "mean"


def _factor_with_scatter(facts: Facts) -> str | None:
    factor = facts.communication.predivide_factor
    if factor is None or factor == 1 or not _scatters_means(facts):
        return None
    return f"gradient_predivide_factor is {factor:g} with reduce_scatter at ZeRO stage {facts.zero_stage}"


def _prescale_with_scatter(facts: Facts) -> str | None:
    communication = facts.communication
    if not communication.prescale_gradients or not _scatters_means(facts):
        return None
    if communication.predivide_factor not in (None, 1):
        return None
    return f"prescale_gradients is true with reduce_scatter at ZeRO stage {facts.zero_stage}"


def _factor_with_prescale(facts: Facts) -> str | None:
    communication = facts.communication
    if not communication.prescale_gradients or communication.predivide_factor in (None, 1):
        return None
    if _scatters_means(facts):
        return None
    return f"gradient_predivide_factor is {communication.predivide_factor:g}, and prescale_gradients true"


def _dtype_with_sequence_ranks(facts: Facts) -> str | None:
    ranks, dtype = facts.ulysses_parallel_size, facts.communication.dtype
    other = facts.communication.sequence_parallel_dtype
    if not dtype or dtype not in DTYPES or ranks is None or ranks == 1 or other in (None, dtype):
        return None
    return f"communication_data_type is {dtype}, and {ranks} sequence parallel ranks reduce in {other}"


def _rename_dtype(facts: Facts) -> tuple[Change, ...]:
    return ((SEQUENCE_DTYPE, facts.communication.dtype),)


def _compressed_once_a_step(facts: Facts) -> str | None:
    if facts.communication.gradient_compression != "int8" or facts.zero_stage is None:
        return None
    offloaded = facts.offload.optimizer not in (None, "none")
    reason = refusal("int8", facts.zero_stage, optimizer_is_offloaded=offloaded)
    return None if reason is None else f"int8 gradients: {reason}"


def _dtype_keeps_gradients(facts: Facts) -> str | None:
    dtype, model = facts.communication.dtype, facts.dtype
    if not dtype or dtype not in DTYPES or model is None or dtype in ("fp32", model):
        return None
    loss = "their range" if dtype == "fp16" else "bits of them"
    return f"gradients of a {model} model travel in {dtype}, which loses {loss}"


RULES = (
    Rule(
        id="communication-dtype",
        summary="Gradients travel in fp16, bf16 or fp32.",
        check=_dtype_is_known,
        remedy="use fp16, bf16 or fp32",
        source="runtime/config.py:230",
        engine_message="Invalid communication_data_type",
        keys=(DTYPE,),
        fix=removal(DTYPE),
        needs=("communication",),
    ),
    Rule(
        id="sequence-communication-dtype",
        summary="Gradients of sequence parallel ranks travel in fp16, bf16 or fp32.",
        check=_sequence_dtype_is_known,
        remedy="use fp16, bf16 or fp32",
        source="runtime/config.py:230",
        engine_message="Invalid communication_data_type",
        keys=(SEQUENCE_DTYPE,),
        fix=removal(SEQUENCE_DTYPE),
        needs=("communication",),
    ),
    Rule(
        id="allreduce-operation",
        summary="Gradients are averaged or summed.",
        check=_operation_is_known,
        remedy="use mean or sum",
        source="runtime/config.py:247",
        engine_message="Invalid gradient_allreduce_op",
        keys=(OPERATION,),
        fix=removal(OPERATION),
        needs=("communication",),
    ),
    Rule(
        id="allreduce-sum-stage-3",
        summary="Stage 3 averages gradients.",
        check=_sums_at_stage_3,
        remedy="use mean, or a lower stage",
        source="runtime/config.py:696",
        engine_message="='sum' is not supported with ZeRO stage 3",
        keys=(OPERATION,),
        fix=removal(OPERATION),
        needs=("communication",),
    ),
    Rule(
        id="allreduce-sum-zenflow",
        summary="ZenFlow averages gradients.",
        check=_sums_with_zenflow,
        remedy="use mean",
        source="runtime/config.py:698",
        engine_message="='sum' is not supported with ZenFlow",
        keys=(OPERATION,),
        fix=removal(OPERATION),
        needs=("communication", "zenflow"),
    ),
    Rule(
        id="allreduce-sum-deepcompile",
        summary="DeepCompile averages gradients.",
        check=_sums_with_deepcompile,
        remedy="use mean",
        source="runtime/config.py:700",
        engine_message="='sum' is not supported with DeepCompile",
        keys=(OPERATION,),
        fix=removal(OPERATION),
        needs=("communication", "compile"),
    ),
    Rule(
        id="predivide-zero",
        summary="Gradients are divided by gradient_predivide_factor.",
        check=_divides_by_zero,
        remedy="take gradient_predivide_factor out",
        source="runtime/engine.py:3809",
        engine_message="division by zero",
        keys=(FACTOR,),
        fix=removal(FACTOR),
        needs=("communication",),
    ),
    Rule(
        id="predivide-reduce-scatter",
        summary="Stages 2 and 3 do not divide gradients in two goes where they reduce-scatter.",
        check=_factor_with_scatter,
        remedy="take gradient_predivide_factor out, or set reduce_scatter to false",
        source="runtime/zero/stage_1_and_2.py:350",
        engine_message="gradient_predivide_factor != 1.0 is not yet supported",
        keys=(FACTOR, SCATTER),
        fix=removal(FACTOR),
        needs=("communication", "zero"),
    ),
    Rule(
        id="prescale-reduce-scatter",
        summary="Stages 2 and 3 do not divide gradients beforehand where they reduce-scatter.",
        check=_prescale_with_scatter,
        remedy="take prescale_gradients out, or set reduce_scatter to false",
        source="runtime/zero/stage_1_and_2.py:351",
        engine_message="pre-scale gradients is not yet supported",
        keys=(PRESCALE, SCATTER),
        fix=removal(PRESCALE),
        needs=("communication", "zero"),
    ),
    Rule(
        id="predivide-prescale",
        summary="Gradients that are divided beforehand are divided by the ranks, not by a factor.",
        check=_factor_with_prescale,
        remedy="take one of the two out",
        source="runtime/engine.py:3807-3816",
        severity="ignored",
        keys=(FACTOR, PRESCALE),
        fix=removal(FACTOR),
        needs=("communication",),
    ),
    Rule(
        id="communication-dtype-sequence",
        summary="With sequence parallel ranks, seq_parallel_communication_data_type (fp32) is what counts.",
        check=_dtype_with_sequence_ranks,
        remedy="set seq_parallel_communication_data_type",
        source="runtime/engine.py:2182",
        severity="overridden",
        keys=(DTYPE, SEQUENCE_DTYPE),
        fix=_rename_dtype,
        needs=("communication",),
    ),
    Rule(
        id="communication-dtype-precise",
        summary="Gradients travel in the model's dtype or in fp32: others lose range or bits.",
        check=_dtype_keeps_gradients,
        remedy="take communication_data_type out, or use fp32",
        source="runtime/engine.py:3800",
        severity="hurts",
        keys=(DTYPE,),
        fix=removal(DTYPE),
        needs=("communication",),
    ),
    Rule(
        id="compression-once-a-step",
        summary=(
            "The trainer compresses gradients that are reduced once a step: at ZeRO-0 and ZeRO-1, with the "
            "optimizer on the device."
        ),
        check=_compressed_once_a_step,
        remedy="use ZeRO-0 or ZeRO-1 without offload, or leave gradient_compression out",
        source="vdsgen/spec/compression.py",
        severity="ours",
        keys=("/vdsgen/gradient_compression", "/zero_optimization/stage"),
        needs=("communication",),
    ),
)
