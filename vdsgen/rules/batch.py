"""Rules on batch sizes."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import are, present
from vdsgen.rules.rule import Change, Rule

TOTAL, MICRO, STEPS = (
    "/train_batch_size",
    "/train_micro_batch_size_per_gpu",
    "/gradient_accumulation_steps",
)


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


def _exact(facts: Facts) -> tuple[Change, ...]:
    """The accumulation steps that make the product exact, where a whole number does."""
    micro, data, total = facts.micro_batch_size, facts.data_parallel_size, facts.global_batch_size
    if not micro or not data or not total or total % (micro * data):
        return ()
    return ((STEPS, total // (micro * data)),)


def _one_is_given(facts: Facts) -> str | None:
    if facts.given is None or present(facts, (TOTAL, MICRO)):
        return None
    return "neither train_batch_size nor train_micro_batch_size_per_gpu is there"


def _sizes_are_numbers(facts: Facts) -> str | None:
    keys = tuple(key for key in (TOTAL, MICRO, STEPS) if key in (facts.automatic or ()))
    return f'{are(keys)} "auto"' if keys else None


def _several_sizes_fill_the_pipeline(facts: Facts) -> str | None:
    stages, steps = facts.pipeline_parallel_size, facts.gradient_accumulation_steps
    if stages is None or steps is None or stages == 1 or steps < 1 or steps >= stages:
        return None
    idle = (stages - 1) / (steps + stages - 1)
    batches = "1 micro-batch" if steps == 1 else f"{steps} micro-batches"
    return f"{batches} on {stages} pipeline stages: every stage idles {idle:.0%} of a step"


RULES = (
    Rule(
        id="batch-positive",
        summary="Global batch size, micro-batch size and accumulation steps are at least 1.",
        check=_positive,
        remedy="use 1 or more",
        source="runtime/config.py:596-600",
        engine_message="has to be greater than 0",
        keys=(TOTAL, MICRO, STEPS),
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
        engine_message="train_batch_size is not equal",
        keys=(TOTAL, MICRO, STEPS),
        fix=_exact,
    ),
    Rule(
        id="pipeline-filled",
        summary="A pipeline has at least as many micro-batches a step as stages: with fewer it idles mostly.",
        check=_several_sizes_fill_the_pipeline,
        remedy="raise gradient_accumulation_steps with smaller micro-batches, or use fewer stages",
        source="runtime/pipe/schedule.py:200",
        severity="hurts",
        keys=(STEPS,),
    ),
    Rule(
        id="batch-given",
        summary="train_batch_size or train_micro_batch_size_per_gpu is given.",
        check=_one_is_given,
        remedy="give train_micro_batch_size_per_gpu",
        source="runtime/config.py:650",
        engine_message="Either train_batch_size or train_micro_batch_size_per_gpu needs to be provided",
        keys=(MICRO, TOTAL),
        needs=("given",),
    ),
    Rule(
        id="batch-numbers",
        summary='Batch sizes are numbers when DeepSpeed reads them: "auto" is filled in by trainers only.',
        check=_sizes_are_numbers,
        remedy="give numbers, or hand the file to a trainer that fills them in",
        source="runtime/config.py:596",
        engine_message="not supported between instances of 'str' and 'int'",
        keys=(TOTAL, MICRO, STEPS),
        needs=("automatic",),
    ),
)
