"""Which unit of one side stands beside which of the other: by path, then by content, as git finds renames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.review.side import DS_CONFIG, PlainConfig, alone
from vdsgen.review.snapshot import NEEDED
from vdsgen.review.trees.files import Files
from vdsgen.review.trees.units import Unit, units_of
from vdsgen.spec.planned_keys import leaves

SIMILAR = 0.85
"""Of all settings: two units that share so many are one that was moved and changed."""
MOST_COMPARED = 60
"""Units that came and went; of more, only those with equal content are paired."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """All units of both sides."""

    changed: Sequence[tuple[Unit, Unit]]
    """Of other content, at the same path or at another."""
    moved: Sequence[tuple[Unit, Unit]]
    """Of the same content at another path."""
    added: Sequence[Unit]
    removed: Sequence[Unit]
    unchanged: Sequence[tuple[Unit, Unit]]
    broken: Sequence[str] = field(default_factory=tuple)
    """Why one cannot be compared."""


def paired(old: Files, new: Files) -> Pairs:
    before, after = units_of(old), units_of(new)
    for side, units, other in ((old, before, after), (new, after, before)):
        if "" in other and "" not in units and not side.named:
            raise VdsgenError(
                f"{side.label} is no rendered directory, as the other side is: it has no {', '.join(NEEDED)}",
                remedy="name a rendered directory or a DeepSpeed JSON; or trees of them on both sides",
            )
    _beside_rendered(before, after)
    _beside_rendered(after, before)
    changed: list[tuple[Unit, Unit]] = []
    unchanged: list[tuple[Unit, Unit]] = []
    for path in [path for path in before if path in after]:
        pair = before.pop(path), after.pop(path)
        if pair[0].identity == pair[1].identity:
            unchanged += [pair] if pair[0].is_config else []
        elif pair[0].is_config or pair[1].is_config:
            changed.append(pair)
    if _single(old, before, changed) and _single(new, after, changed) and not unchanged:
        changed.append((before.popitem()[1], after.popitem()[1]))
    gone, came = ([unit for unit in side.values() if unit.is_config] for side in (before, after))
    moved = _with_equal_content(gone, came)
    similar, broken = _similar(gone, came)
    changed += similar
    changed.sort(key=lambda pair: pair[1].path)
    return Pairs(changed, moved, came, gone, unchanged, broken)


def _single(files: Files, units: Mapping[str, Unit], changed: Sequence[object]) -> bool:
    """Whether a side is one unit by itself: then what it is called does not matter."""
    return not changed and len(units) == 1 and ("" in units or files.named)


def _beside_rendered(units: dict[str, Unit], others: Mapping[str, Unit]) -> None:
    """A lone ds_config.json whose folder is a rendered directory on the other side is named by the folder."""
    for path in [path for path in units if PurePosixPath(path).name == DS_CONFIG]:
        folder = path.rpartition("/")[0]
        if folder in others and folder not in units and others[folder].rendered:
            units[folder] = units.pop(path)


def _with_equal_content(gone: list[Unit], came: list[Unit]) -> list[tuple[Unit, Unit]]:
    """Takes the pairs out of both lists."""
    by_content: dict[object, list[Unit]] = {}
    for unit in came:
        by_content.setdefault(_content(unit), []).append(unit)
    moved = []
    for unit in list(gone):
        same = by_content.get(_content(unit))
        if same:
            other = min(same, key=lambda one: one.path.rpartition("/")[2] != unit.path.rpartition("/")[2])
            same.remove(other)
            gone.remove(unit)
            came.remove(other)
            moved.append((unit, other))
    return moved


def _content(unit: Unit) -> object:
    """A JSON's name does not count, the names in a directory do."""
    return unit.identity if unit.rendered else tuple(oid for _, oid in unit.identity)


def _similar(gone: list[Unit], came: list[Unit]) -> tuple[list[tuple[Unit, Unit]], list[str]]:
    """The likest first; takes the pairs out of both lists."""
    if not gone or not came or max(len(gone), len(came)) > MOST_COMPARED:
        return [], []
    broken: list[str] = []
    said = {}
    for unit in (*gone, *came):
        try:
            said[unit] = _settings(unit)
        except VdsgenError as error:
            broken.append(str(error))
    scored = sorted(
        (
            (-_likeness(said[old], said[new]), old.path, new.path, old, new)
            for old in gone
            for new in came
            if old in said and new in said and old.rendered == new.rendered
        ),
        key=lambda entry: entry[:3],
    )
    pairs = []
    for score, _, _, old, new in scored:
        if -score >= SIMILAR and old in gone and new in came:
            gone.remove(old)
            came.remove(new)
            pairs.append((old, new))
    return pairs, broken


def _settings(unit: Unit) -> dict[tuple[str, ...], Any]:
    side = unit.side
    found = {("ds_config", *path): value for path, value in leaves(alone(side).ds_config)}
    if not isinstance(side, PlainConfig):
        inputs = {"experiment": side.experiment, "pool": side.plan.inputs.pool, "model": side.plan.model}
        for name, spec in inputs.items():
            found |= {
                (name, *path): value
                for path, value in leaves(spec.model_dump(mode="json"))
                if value is not None
            }
    return found


def _likeness(one: Mapping[tuple[str, ...], Any], other: Mapping[tuple[str, ...], Any]) -> float:
    keys = one.keys() | other.keys()
    missing = object()
    same = sum(one.get(key, missing) == other.get(key, missing) for key in keys)
    return float(same) / max(1, len(keys))
