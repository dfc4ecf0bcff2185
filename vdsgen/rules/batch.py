"""Rules on batch sizes."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.rule import Rule

VERSIONS = "0.19.8"


def _positive(facts: Facts) -> str | None:
    sizes = {
        "global batch size": facts.global_batch_size,
        "micro-batch size": facts.micro_batch_size,
        "gradient accumulation steps": facts.gradient_accumulation_steps,
    }
    bad = [f"{name} is {value}" for name, value in sizes.items() if value is not None and value < 1]
    return " and ".join(bad) or None


def _product(facts: Facts) -> str | None:
    micro, steps = facts.micro_batch_size, facts.gradient_accumulation_steps
    data, total = facts.data_parallel_size, facts.global_batch_size
    if micro is None or steps is None or data is None or total is None:
        return None
    if micro * steps * data == total:
        return None
    return (
        f"micro-batch size {micro} x gradient accumulation steps {steps} x data parallel size {data} is "
        f"{micro * steps * data}, the global batch size is {total}"
    )


RULES = (
    Rule(
        id="batch-positive",
        summary="Global batch size, micro-batch size and accumulation steps are at least 1.",
        check=_positive,
        remedy="use 1 or more",
        source="runtime/config.py:596-600",
        versions=VERSIONS,
        engine_message="has to be greater than 0",
    ),
    Rule(
        id="batch-product",
        summary=(
            "The global batch size is the product of micro-batch size, gradient accumulation steps and "
            "data parallel size."
        ),
        check=_product,
        remedy="change one of the four so that the product is exact",
        source="runtime/config.py:602",
        versions=VERSIONS,
        engine_message="train_batch_size is not equal",
    ),
)
