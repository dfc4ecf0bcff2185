"""What a change does to a whole tree: a diff for each pair of units, and what came and went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.review.diff import Diff, diff_sides
from vdsgen.review.diff_json import as_json
from vdsgen.review.side import PlainConfig, alone
from vdsgen.review.trees.files import Files
from vdsgen.review.trees.pairs import paired
from vdsgen.review.trees.units import Unit


@dataclass(frozen=True, slots=True)
class Compared:
    """One pair that does not say the same."""

    old: Unit
    new: Unit
    diff: Diff
    document: dict[str, Any]
    """The diff as JSON has it."""

    @property
    def name(self) -> str:
        """Where it is now."""
        return self.new.shown_path

    @property
    def was_moved(self) -> bool:
        names_one = "" in (self.old.path, self.new.path) or self.old.files.named
        return self.old.path != self.new.path and not names_one


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """Two trees beside each other."""

    title: str
    old: str
    new: str
    pairs: tuple[Compared, ...]
    moved: tuple[tuple[str, str], ...]
    """(from, to) of units that are otherwise the same."""
    added: tuple[Unit, ...]
    removed: tuple[Unit, ...]
    unchanged: int
    """Pairs that say the same, also those whose files differ in spelling alone."""
    broken: tuple[str, ...]
    """Why a pair cannot be compared."""
    error: VdsgenError | None = None
    """Where the only pair cannot be."""

    @property
    def same(self) -> bool:
        came_or_went = self.moved or self.added or self.removed
        return not came_or_went and all(pair.diff.same for pair in self.pairs)

    @property
    def exit_code(self) -> int:
        """As diff(1): 0 the same, 1 different, 2 trouble."""
        return 2 if self.broken else 0 if self.same else 1

    @property
    def single(self) -> Diff | None:
        """The one diff, where there is nothing else to say."""
        alone_in_it = not (self.moved or self.added or self.removed or self.broken)
        one = alone_in_it and len(self.pairs) == 1 and not self.unchanged and not self.pairs[0].was_moved
        return self.pairs[0].diff if one else None


def compare(
    old: Files, new: Files, title: str, progress: Callable[[float], None] = lambda _share: None
) -> TreeDiff:
    """A pair that cannot be read is named, and hides no other."""
    pairs = paired(old, new)
    changed, same = list(pairs.changed), len(pairs.unchanged)
    alone_in_it = len(changed) + same == 1 and not (pairs.moved or pairs.added or pairs.removed)
    if alone_in_it and same:
        changed, same = list(pairs.unchanged), 0
    _read_ahead([unit for pair in changed for unit in pair])
    compared: list[Compared] = []
    broken = list(pairs.broken)
    errors: list[VdsgenError] = []
    for number, (before, after) in enumerate(changed, start=1):
        try:
            diff = _diff(before, after)
        except VdsgenError as error:
            broken.append(str(error))
            errors.append(error)
            continue
        finally:
            progress(number / len(changed))
        if diff.same and before.path == after.path and not alone_in_it:
            same += 1
        else:
            compared.append(Compared(before, after, diff, as_json(diff)))
    return TreeDiff(
        title=title,
        old=old.label,
        new=new.label,
        pairs=tuple(compared),
        moved=tuple((before.path, after.path) for before, after in pairs.moved),
        added=tuple(pairs.added),
        removed=tuple(pairs.removed),
        unchanged=same,
        broken=tuple(broken),
        error=errors[0] if len(changed) == 1 == len(errors) and not same else None,
    )


def _diff(before: Unit, after: Unit) -> Diff:
    old, new = before.side, after.side
    if isinstance(old, PlainConfig) != isinstance(new, PlainConfig):
        old, new = alone(old), alone(new)
    return diff_sides(old, new)


def _read_ahead(units: Sequence[Unit]) -> None:
    """The contents of all, with one process a side."""
    by_side: dict[int, list[Unit]] = {}
    for unit in units:
        by_side.setdefault(id(unit.files), []).append(unit)
    for group in by_side.values():
        files = group[0].files
        contents = files.read([path for unit in group for path in unit.parts.values()])
        for unit in group:
            unit.__dict__["contents"] = {
                name: contents[path] for name, path in unit.parts.items() if path in contents
            }
