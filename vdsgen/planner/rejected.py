"""The candidates that lost, by family: why, how many, and the one that came nearest."""

from __future__ import annotations

from vdsgen.planner.compare import compared
from vdsgen.planner.place import Miss
from vdsgen.planner.search import Candidate, Search, Tally
from vdsgen.planner.words import miss_words, settings_words
from vdsgen.spec.plan import Rejected

INEXACT_SUMS = "inexact_sums"
"""Reason of candidates that were set aside because gradients would add up in bf16."""


def rejected(found: Search, winner: Candidate) -> tuple[Rejected, ...]:
    """The families that lost: those that do not fit, slower ones, and those that a rule forbids."""
    entries = [
        _out_of_memory(stages, tally) for stages, tally in sorted(found.out_of_memory.items()) if tally.count
    ]
    entries += [
        entry
        for stages, tally in sorted(found.fitting.items())
        if (entry := _slower(stages, tally, winner, found)) is not None
    ]
    for rule_id, tally in sorted(found.refused.items()):
        assert tally.violation is not None and tally.settings is not None
        entries.append(
            Rejected(
                reason=rule_id,
                count=tally.count,
                detail=f"{tally.violation.rule.summary} For one: {tally.violation.message}.",
                nearest={"settings": tally.settings.record()},
            )
        )
    if found.smaller.count:
        entries.append(_fewer_gpus(found.smaller, winner, idle=winner.settings.world_size < _most(found)))
    if found.inexact_sums:
        entries.append(
            Rejected(
                reason=INEXACT_SUMS,
                count=found.inexact_sums,
                detail="ZeRO-0 with bf16 would add up several micro-batches' gradients in bf16 "
                "(pin zero_stage: 0 or gradient_accumulation_dtype: model to allow it).",
                nearest={},
            )
        )
    return tuple(entries)


def _out_of_memory(stages: int, tally: Tally) -> Rejected:
    miss = tally.nearest_miss
    assert miss is not None, "a count of misses without one"
    told = f"Pipeline {stages}: the nearest miss, {settings_words(miss.settings, layout=False)}"
    return _missed(tally.count, miss, told)


def _missed(count: int, miss: Miss, told: str) -> Rejected:
    return Rejected(
        reason="out_of_memory",
        count=count,
        detail=f"{told}, {miss_words(miss)}.",
        nearest={
            "settings": miss.settings.record(),
            "stage": miss.stage,
            "missing_bytes": miss.over_bytes,
            "biggest_component": miss.biggest_component,
        },
    )


def _slower(stages: int, tally: Tally, winner: Candidate, found: Search) -> Rejected | None:
    """The fitting candidates of one pipeline size that are not the winner."""
    whole = winner.settings.world_size == _most(found)
    own = whole and stages == winner.settings.pipeline_parallel_size
    count = tally.count + found.surely_slower.get(stages, 0) - int(own)
    if count < 1:
        return None
    best = tally.fastest
    if best is None:
        return Rejected(
            reason="slower",
            count=count,
            detail=f"Pipeline {stages}: slower at best, by a bound on its time.",
            nearest={},
        )
    if own:
        others = [
            one
            for one in found.ranked[1:]
            if one.settings.pipeline_parallel_size == stages
            and one.settings.world_size == winner.settings.world_size
        ]
        if not others:
            return Rejected(
                reason="slower",
                count=count,
                detail=f"Pipeline {stages}: the same plan with another checkpoint interval is no faster.",
                nearest={},
            )
        best = others[0]
    return Rejected(
        reason="slower",
        count=count,
        detail=f"Pipeline {stages}: the best of these, {settings_words(best.settings, layout=False)}, "
        f"{compared(best, winner)}.",
        nearest={"settings": best.settings.record(), "samples_per_second": best.time.samples_per_second},
    )


def _most(found: Search) -> int:
    """GPUs of the largest layouts."""
    return max(layout.world_size for layout in found.layouts)


def _fewer_gpus(tally: Tally, winner: Candidate, *, idle: bool) -> Rejected:
    """Candidates that leave GPUs idle; the winner may be one."""
    best, miss = tally.fastest, tally.nearest_miss
    if miss is not None:
        told = f"Fewer GPUs fit nothing: the nearest miss, {settings_words(miss.settings)}"
        return _missed(tally.count, miss, told)
    if best is None or best.settings == winner.settings:
        return Rejected(
            reason="slower",
            count=tally.count - int(idle),
            detail="Fewer GPUs are slower at best, by a bound on their time.",
            nearest={},
        )
    return Rejected(
        reason="slower",
        count=tally.count - int(idle),
        detail=f"{best.settings.world_size} GPUs: {settings_words(best.settings)}, {compared(best, winner)}.",
        nearest={"settings": best.settings.record(), "samples_per_second": best.time.samples_per_second},
    )
