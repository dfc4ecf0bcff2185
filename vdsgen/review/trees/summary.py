"""What a reviewer of many directories needs first: verdicts, extremes, and each setting's change once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from vdsgen.review.trees.compare import Compared, TreeDiff

GROUP_ORDER = ("numerics", "memory", "speed", "unknown", "housekeeping")
TEXTS = ("reasons", "search", "explanations")
"""Parts of plan.json that are compared as a whole."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One change of a setting, and where it was made."""

    old: str
    new: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One setting that changed, in any number of directories."""

    file: str
    key: str
    group: str
    variants: tuple[Variant, ...]
    """The most frequent first."""
    ratio: float | None
    """New over old where that is the same everywhere, and the values are not."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for variant in self.variants for name in variant.names)

    @property
    def short(self) -> str:
        return self.key or self.file


@dataclass(frozen=True, slots=True)
class Extreme:
    """Two figures of one directory."""

    name: str
    old: float
    new: float

    @property
    def relative(self) -> float:
        return self.new / self.old - 1 if self.old else 0.0


@dataclass(frozen=True, slots=True)
class RiskGroup:
    """One risk, wherever it is."""

    id: str
    severity: str
    messages: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Classes:
    """How many directories come to each verdict, which, and why."""

    names: Mapping[str, tuple[str, ...]]
    because: Mapping[str, tuple[str, ...]]
    """Of each verdict the keys that force it, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of all pairs that do not say the same."""

    pairs: tuple[Compared, ...]
    prefix: str
    """The folder that all of them lie in, left out of their names; it ends in a slash, where there is one."""
    names: tuple[str, ...]
    """Of each pair."""
    changes: tuple[KeyChange, ...]
    loss_curve: Classes
    resume: Classes
    risks: tuple[RiskGroup, ...]
    peak_bytes: tuple[Extreme, ...]
    """Predicted, of every pair that has figures, the largest growth first."""
    headroom_bytes: tuple[Extreme, ...]
    """The least that is left first."""
    step_seconds: tuple[Extreme, ...]
    """The largest growth first."""

    @property
    def median_peak(self) -> float:
        return median(one.relative for one in self.peak_bytes)

    @property
    def median_step(self) -> float:
        return median(one.relative for one in self.step_seconds)


Named = Sequence[tuple[str, Compared]]


def summary_of(result: TreeDiff) -> Summary:
    pairs = result.pairs
    prefix = _common_folder([pair.name for pair in pairs])
    named = [(pair.name.removeprefix(prefix), pair) for pair in pairs]
    return Summary(
        pairs=pairs,
        prefix=prefix,
        names=tuple(name for name, _ in named),
        changes=tuple(_changes(named)),
        loss_curve=_classes(named, "loss_curve"),
        resume=_classes(named, "resume"),
        risks=tuple(_risks(named)),
        peak_bytes=_extremes(named, "peak_bytes", lambda one: -one.relative),
        headroom_bytes=_extremes(named, "headroom_bytes", lambda one: one.new),
        step_seconds=_extremes(named, "step_seconds", lambda one: -one.relative),
    )


def _common_folder(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    folders = [name.split("/")[:-1] for name in names]
    shared = 0
    while all(len(one) > shared and one[shared] == folders[0][shared] for one in folders):
        shared += 1
    return "".join(f"{part}/" for part in folders[0][:shared])


def _changes(pairs: Named) -> Iterator[KeyChange]:
    """Those that say something of their own, by group, the most frequent first."""
    found: dict[tuple[str, str, str], list[tuple[Any, Any, str]]] = {}
    for where, pair in pairs:
        for change in pair.document["changes"]:
            if change["follows_from"] is not None or not change["affects"]:
                continue
            key = (change["affects"][0], change["file"], change["key"])
            found.setdefault(key, []).append((change.get("old", _ABSENT), change.get("new", _ABSENT), where))
    changes = [_key_change(*key, made) for key, made in found.items()]
    yield from sorted(changes, key=lambda one: (_rank(one.group), -len(one.names), one.file, one.key))


def _rank(group: str) -> int:
    return GROUP_ORDER.index(group) if group in GROUP_ORDER else len(GROUP_ORDER)


_ABSENT = object()


def _key_change(group: str, file: str, key: str, made: Sequence[tuple[Any, Any, str]]) -> KeyChange:
    by_values: dict[tuple[str, str], list[str]] = {}
    for old, new, name in made:
        by_values.setdefault((_text(old, file, key), _text(new, file, key)), []).append(name)
    variants = [Variant(old, new, tuple(names)) for (old, new), names in by_values.items()]
    variants.sort(key=lambda variant: -len(variant.names))
    return KeyChange(file, key, group, tuple(variants), _ratio(made) if len(variants) > 1 else None)


def _text(value: Any, file: str, key: str) -> str:
    if value is _ABSENT:
        return "(absent)"
    if not key or key in TEXTS or (file == "plan.json" and key.endswith("sha256")):
        return "(text)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _ratio(made: Sequence[tuple[Any, Any, str]]) -> float | None:
    ratios = set()
    for old, new, _ in made:
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new)):
            return None
        if not old:
            return None
        ratios.add(float(f"{new / old:.6g}"))
    return ratios.pop() if len(ratios) == 1 else None


def _classes(pairs: Named, name: str) -> Classes:
    names: dict[str, list[str]] = {}
    because: dict[str, Counter[str]] = {}
    for where, pair in pairs:
        verdicts = pair.document.get("verdicts") or {}
        verdict = verdicts.get(name)
        if verdict is None:
            continue
        names.setdefault(verdict, []).append(where)
        because.setdefault(verdict, Counter()).update(verdicts.get(f"{name}_because", ()))
    return Classes(
        {verdict: tuple(found) for verdict, found in names.items()},
        {verdict: tuple(key for key, _ in found.most_common()) for verdict, found in because.items()},
    )


def _risks(pairs: Named) -> Iterator[RiskGroup]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for where, pair in pairs:
        for risk in pair.document.get("risks") or ():
            found.setdefault((risk["severity"], risk["id"]), []).append((risk["message"], where))
    order = sorted(found.items(), key=lambda entry: (entry[0][0] != "error", -len(entry[1]), entry[0][1]))
    for (severity, name), told in order:
        messages = tuple(dict.fromkeys(message for message, _ in told))
        yield RiskGroup(name, severity, messages, tuple(dict.fromkeys(where for _, where in told)))


def _extremes(pairs: Named, figure: str, order: Callable[[Extreme], float]) -> tuple[Extreme, ...]:
    found = []
    for where, pair in pairs:
        predicted = pair.document.get("predicted") or {}
        old, new = predicted.get("old"), predicted.get("new")
        if old is not None and new is not None:
            found.append(Extreme(where, old[figure], new[figure]))
    return tuple(sorted(found, key=lambda one: (order(one), one.name)))
