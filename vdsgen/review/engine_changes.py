"""Where two DeepSpeed configs differ, and whether the engine would notice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from vdsgen.review.absent import ABSENT
from vdsgen.review.effective import BATCH, EffectiveConfig, Setting

TOTAL, MICRO, STEPS = BATCH
RATE = frozenset({"optimizer.params.lr", "scheduler.params.warmup_max_lr"})
"""Keys that the same learning rate can stand under."""
OF_ITS_CLASS = tuple(f"optimizer.params.{name}" for name in ("lr", "betas", "eps", "weight_decay"))
"""Parameters whose defaults depend on which class the engine builds."""


class Difference(NamedTuple):
    """One setting that is not written alike."""

    key: str
    """By its name of today."""
    old: Any
    """As it is written; ABSENT where it is not."""
    new: Any
    was: Any
    """What the engine works with; ABSENT where that is not known."""
    now: Any
    note: str | None = None
    """What a reader should know: that it has another name, is the default, or is not read."""
    without_effect: bool = False


def engine_differences(old: EffectiveConfig, new: EffectiveConfig) -> Iterator[Difference]:
    """In the order of the files, then what follows from defaults that are no longer the same."""
    for key in {**old.settings, **new.settings}:
        before, after = old.settings.get(key), new.settings.get(key)
        raw = tuple(ABSENT if one is None else one.raw for one in (before, after))
        if _same(*raw) and _name(before) == _name(after):
            continue
        found = _difference(key, before, after, old, new)
        if found.without_effect and all(one == {} or one is ABSENT for one in raw):
            continue  # an empty section says nothing
        yield found
    yield from _implied(old, new)


def _difference(
    key: str, before: Setting | None, after: Setting | None, old: EffectiveConfig, new: EffectiveConfig
) -> Difference:
    raw = (ABSENT if before is None else before.raw, ABSENT if after is None else after.raw)
    was, now = old.value(key), new.value(key)
    renamed = _renamed(before, after)
    if _same(was, now):
        return Difference(key, *raw, was, now, renamed or _why_the_same(raw, key, new), True)
    idle = [config.idle(key) for config, setting in ((old, before), (new, after)) if setting is not None]
    if all(idle) and not _is_the_peak(key, old, new):
        return Difference(key, *raw, was, now, f"not read: {idle[-1]}", True)
    if key in RATE and old.rate is not None and old.rate == new.rate and _same_schedule(old, new):
        return Difference(key, *raw, was, now, f"the peak stays {old.rate:g}", True)
    return Difference(key, *raw, was, now, renamed)


def _is_the_peak(key: str, old: EffectiveConfig, new: EffectiveConfig) -> bool:
    """Whether the optimizer's rate, which a schedule overrides, says on both sides what the schedule says,
    and both change: it is then the one that people think of."""
    rates = [(config.value("optimizer.params.lr"), config.rate) for config in (old, new)]
    return key == "optimizer.params.lr" and all(lr == peak for lr, peak in rates) and old.rate != new.rate


def _same_schedule(old: EffectiveConfig, new: EffectiveConfig) -> bool:
    return _same(old.value("scheduler.type"), new.value("scheduler.type"))


def _renamed(before: Setting | None, after: Setting | None) -> str | None:
    if before is not None and after is not None and before.name != after.name:
        return f"renamed: was {before.name}" + ("" if after.name == after.key else f", is {after.name}")
    there = after or before
    if there is not None and there.name != there.key:
        return f"written as {there.name}"
    return None


def _why_the_same(raw: tuple[Any, Any], key: str, new: EffectiveConfig) -> str:
    if key == "optimizer.type" and {str(one).lower() for one in raw} == {"adam", "adamw"}:
        return "Adam is AdamW unless adam_w_mode is false"
    if ABSENT not in raw:
        return "another spelling of the same value"
    if key in BATCH:
        return f"follows from the other batch sizes on {new.ranks} ranks" if new.ranks else "the default"
    return "the default, left out" if raw[1] is ABSENT else "the default, written out"


def _implied(old: EffectiveConfig, new: EffectiveConfig) -> Iterator[Difference]:
    """What nobody wrote and is another now."""
    if _same(old.value("optimizer.type"), new.value("optimizer.type")):
        for key in OF_ITS_CLASS:
            was, now = old.value(key), new.value(key)
            written = key in old.settings or key in new.settings
            if not written and not _same(was, now) and ABSENT not in (was, now):
                yield Difference(key, ABSENT, ABSENT, was, now, "the default of another optimizer class")
    if TOTAL in old.settings or TOTAL in new.settings:
        return
    was, now = old.value(TOTAL), new.value(TOTAL)
    ratio = batch_ratio(old, new)
    if ratio not in (None, 1):
        note = f"{ratio:g} times as many samples a step" + ("" if was is not ABSENT else ", on as many ranks")
        yield Difference(TOTAL, ABSENT, ABSENT, was, now, note)


def batch_ratio(old: EffectiveConfig, new: EffectiveConfig) -> float | None:
    """NEW's samples a step over OLD's, on as many ranks where nothing says how many; None: not known."""
    totals = [_number(config.value(TOTAL)) for config in (old, new)]
    if totals[0] is not None and totals[1] is not None:
        return totals[1] / totals[0]
    if any(TOTAL in config.settings for config in (old, new)):
        return None
    of_a_rank = []
    for config in (old, new):
        sizes = [_number(config.value(key)) for key in (MICRO, STEPS)]
        if sizes[0] is None or sizes[1] is None:
            return None
        of_a_rank.append(sizes[0] * sizes[1])
    return of_a_rank[1] / of_a_rank[0]


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _name(setting: Setting | None) -> str | None:
    return None if setting is None else setting.name


def _same(one: Any, other: Any) -> bool:
    """As JSON has values: true is not 1."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return bool(one == other)
