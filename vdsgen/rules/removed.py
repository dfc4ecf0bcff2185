"""Rules on what earlier releases of DeepSpeed had."""

from __future__ import annotations

from collections.abc import Callable

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import named, present, removal
from vdsgen.rules.rule import REMOVE, Change, Rule

ZERO = "/zero_optimization"
GONE: tuple[tuple[str, str, str, int], ...] = (
    ("/nebula", "Nebula checkpointing", "take it out", 82),
    ("/compression_training", "the compression library", "take it out", 85),
    ("/amp", "Apex AMP", "use fp16, bf16 or torch_autocast", 88),
    ("/quantize_training", "mixture-of-quantization", "take it out", 91),
    ("/sparse_gradients", "sparse compression of dense embedding gradients", "take it out", 94),
    ("/eigenvalue", "eigenvalue-based mixture-of-quantization", "take it out", 99),
    ("/sparse_attention", "sparse attention", "take it out", 102),
    ("/elasticity", "elastic training", "set the batch sizes themselves", 105),
    ("/graph_harvesting", "graph harvesting", "take it out", 108),
    (
        "/curriculum_learning",
        "top-level curriculum learning",
        "use data_efficiency.data_sampling.curriculum_learning",
        111,
    ),
    ("/progressive_layer_drop", "progressive layer dropping", "take it out", 115),
    (f"{ZERO}/mics_shard_size", "MiCS sharding", "use zero_hpz_partition_size", 120),
    (f"{ZERO}/mics_hierarchical_params_gather", "MiCS sharding", "use zero_hpz_partition_size", 123),
    (f"{ZERO}/zeropp_loco_param", "LoCo for ZeRO++", "take it out", 126),
)
"""The key, what it was of, what to do, and the line of runtime/config.py that says so."""

REPLACED = {
    f"{ZERO}/cpu_offload": (f"{ZERO}/offload_optimizer",),
    f"{ZERO}/cpu_offload_param": (f"{ZERO}/offload_param",),
    f"{ZERO}/stage3_gather_fp16_weights_on_model_save": (
        f"{ZERO}/stage3_gather_16bit_weights_on_model_save",
        f"{ZERO}/gather_16bit_weights_on_model_save",
    ),
}
"""Old keys and the new ones that say the same."""
PINNED = f"{ZERO}/cpu_offload_use_pin_memory"
LEGACY_BF16 = "/bfloat16"


def _absent(key: str) -> Callable[[Facts], str | None]:
    def check(facts: Facts) -> str | None:
        return f"{named((key,))} is there" if facts.given is not None and key in facts.given else None

    return check


def _gone(key: str, was: str, remedy: str, line: int) -> Rule:
    name = key.rpartition("/")[2]
    return Rule(
        id=f"removed-{name.replace('_', '-')}",
        summary=f"{named((key,))} is gone, and with it {was}.",
        check=_absent(key),
        remedy=remedy,
        source=f"runtime/config.py:{line}",
        engine_message=name if key.startswith(ZERO) else "removed",
        keys=(key,),
        fix=removal(key),
        needs=("given",),
    )


def _said_twice(facts: Facts) -> str | None:
    both = _twice(facts)
    return f"{named(both)} is there beside the key that replaced it" if both else None


def _twice(facts: Facts) -> tuple[str, ...]:
    return tuple(old for old, new in REPLACED.items() if present(facts, (old,)) and present(facts, new))


def _drop_old(facts: Facts) -> tuple[Change, ...]:
    return tuple((key, REMOVE) for key in _twice(facts))


def _pins_nothing(facts: Facts) -> str | None:
    return "cpu_offload_use_pin_memory is there" if present(facts, (PINNED,)) else None


def _bf16_named_twice(facts: Facts) -> str | None:
    return "bf16 and bfloat16 are both there" if len(present(facts, ("/bf16", LEGACY_BF16))) == 2 else None


RULES = (
    *(_gone(*row) for row in GONE),
    Rule(
        id="deprecated-beside-new",
        summary="An old key and the one that replaced it are not both given.",
        check=_said_twice,
        remedy="take the old key out",
        source="runtime/config_utils.py:91",
        engine_message="Cannot provide deprecated parameter",
        keys=tuple(REPLACED),
        fix=_drop_old,
        needs=("given",),
    ),
    Rule(
        id="deprecated-pin-memory",
        summary="cpu_offload_use_pin_memory is parsed, and nothing reads it.",
        check=_pins_nothing,
        remedy="set pin_memory in offload_optimizer and offload_param",
        source="runtime/zero/config.py:199",
        severity="ignored",
        keys=(PINNED,),
        fix=removal(PINNED),
        needs=("given",),
    ),
    Rule(
        id="bfloat16-beside-bf16",
        summary="bfloat16 is the old name of bf16, and is not read where bf16 is there.",
        check=_bf16_named_twice,
        remedy="take bfloat16 out",
        source="runtime/precision_config.py:35",
        severity="ignored",
        keys=(LEGACY_BF16,),
        fix=removal(LEGACY_BF16),
        needs=("given",),
    ),
)
