"""Rules on ZeRO++: quantized communication and a second copy of the parameters (arXiv 2306.10209)."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal
from vdsgen.rules.rule import Rule

HPZ = "/zero_optimization/zero_hpz_partition_size"
WEIGHTS = "/zero_optimization/zero_quantized_weights"
FROZEN = "/zero_optimization/zero_quantized_nontrainable_weights"
GRADIENTS = "/zero_optimization/zero_quantized_gradients"


def _below_stage_3(facts: Facts) -> str | None:
    if facts.zero_stage in (None, 3):
        return None
    zero = facts.zero
    on = {
        "zero_hpz_partition_size": zero.hpz_partition_size is not None and zero.hpz_partition_size > 1,
        "zero_quantized_weights": zero.quantized_weights,
        "zero_quantized_nontrainable_weights": zero.quantized_nontrainable_weights,
        "zero_quantized_gradients": zero.quantized_gradients,
    }
    found = [name for name, is_on in on.items() if is_on]
    return f"{' and '.join(found)} at ZeRO stage {facts.zero_stage}" if found else None


def _copy_size(facts: Facts) -> int | None:
    """Ranks that share the second copy of the parameters; None where there is none, or it is not known."""
    size = facts.zero.hpz_partition_size
    return size if size is not None and size > 1 and facts.zero_stage == 3 else None


def _copy_divides_world(facts: Facts) -> str | None:
    size, world = _copy_size(facts), facts.world_size
    if size is None or world is None or world % min(size, world) == 0:
        return None
    return f"zero_hpz_partition_size {size} does not divide {world} ranks"


def _copy_is_smaller_than_world(facts: Facts) -> str | None:
    size, world = _copy_size(facts), facts.world_size
    if size is None or world is None or size < world:
        return None
    return f"zero_hpz_partition_size {size} on {world} ranks: the second copy is cut like the first"


def _copy_stays_in_a_node(facts: Facts) -> str | None:
    size, node = _copy_size(facts), facts.machine.gpus_per_node
    if size is None or node is None or node % size == 0:
        return None
    return f"a copy of the parameters on {size} ranks, nodes of {node}: gathers in backward cross nodes"


def _quantizes_gradients(facts: Facts) -> bool:
    return bool(facts.zero.quantized_gradients) and facts.zero_stage == 3


def _gradients_on_whole_nodes(facts: Facts) -> str | None:
    world, node = facts.world_size, facts.machine.gpus_per_node
    if not facts.zero.quantized_gradients or world is None or node is None:
        return None
    if world <= node or world % node == 0:
        return None
    return f"zero_quantized_gradients on {world} ranks, nodes have {node}"


def _gradients_are_scattered(facts: Facts) -> str | None:
    if not _quantizes_gradients(facts) or facts.zero.reduce_scatter is not False:
        return None
    return "zero_quantized_gradients is true, and reduce_scatter false"


def _weights_without_autocast(facts: Facts) -> str | None:
    if not facts.zero.quantized_weights or not facts.precision.autocast_enabled:
        return None
    return "zero_quantized_weights and torch_autocast are both on"


RULES = (
    Rule(
        id="zeropp-stage-3",
        summary="ZeRO++ is part of stage 3; below it nothing is quantized, and there is no second copy.",
        check=_below_stage_3,
        remedy="use stage 3, or take the keys out",
        source="runtime/engine.py:2787-2789",
        severity="ignored",
        keys=(HPZ, WEIGHTS, FROZEN, GRADIENTS),
        fix=removal(HPZ, WEIGHTS, FROZEN, GRADIENTS),
        needs=("zero",),
    ),
    Rule(
        id="hpz-divides-world",
        summary="The ranks of the second copy of the parameters divide the ranks of the job.",
        check=_copy_divides_world,
        remedy="use the number of GPUs of a node",
        source="utils/groups.py:945",
        engine_message="is not divisible by",
        keys=(HPZ,),
        needs=("zero",),
    ),
    Rule(
        id="hpz-smaller-than-world",
        summary="The second copy of the parameters is on fewer ranks than the first, or it only costs.",
        check=_copy_is_smaller_than_world,
        remedy="use the number of GPUs of a node, or 1 for no second copy",
        source="utils/groups.py:944",
        severity="hurts",
        keys=(HPZ,),
        fix=removal(HPZ),
        needs=("zero",),
    ),
    Rule(
        id="hpz-in-a-node",
        summary="The second copy of the parameters lies within nodes: that is what it is for.",
        check=_copy_stays_in_a_node,
        remedy="use the number of GPUs of a node, or a divisor of it",
        source="runtime/zero/partition_parameters.py:1572",
        severity="hurts",
        keys=(HPZ,),
        needs=("zero", "machine"),
    ),
    Rule(
        id="quantized-gradients-whole-nodes",
        summary="Quantized gradients need all GPUs of every node.",
        check=_gradients_on_whole_nodes,
        remedy="start ranks on whole nodes, or take zero_quantized_gradients out",
        source="utils/groups.py:750",
        engine_message="num_gpus not equal to device per node",
        keys=(GRADIENTS,),
        fix=removal(GRADIENTS),
        needs=("zero", "machine"),
    ),
    Rule(
        id="quantized-gradients-scattered",
        summary="Quantized gradients need reduce_scatter.",
        check=_gradients_are_scattered,
        remedy="leave reduce_scatter at true",
        source="runtime/zero/stage3.py:390",
        engine_message="when enable all_to_all_reduce, reduce_scatter should also be enabled",
        keys=("/zero_optimization/reduce_scatter", GRADIENTS),
        fix=removal("/zero_optimization/reduce_scatter"),
        needs=("zero",),
    ),
    Rule(
        id="quantized-weights-autocast",
        summary="Quantized weights and torch_autocast exclude each other.",
        check=_weights_without_autocast,
        remedy="take one of them out",
        source="runtime/torch_autocast.py:32",
        engine_message="Cannot enable both torch autocast and zero quantized weights",
        keys=(WEIGHTS, "/torch_autocast"),
        fix=removal(WEIGHTS),
        needs=("zero", "precision"),
    ),
)
