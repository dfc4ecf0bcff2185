"""Settings that differ between two rendered directories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.effects import ANYTHING, GROUPS, Group, effect_of, follows_from
from vdsgen.spec.secrets import is_secret_name

NOT_SETTINGS = ("stages", "predicted")
"""Parts of plan.json that are predictions; `vdsgen diff` shows them by themselves."""
ONE_VALUE = ("reasons", "search", "explanations")
"""Parts of plan.json that are compared as a whole."""
TEXT_FILES = ("launch.sh", "hostfile", "train.sbatch", "pytorchjob.yaml", "PLAN.md")


class Absent:
    """Stands for a key that is not there; JSON's null is a value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value differs."""

    file: str
    key: str
    """Dotted; empty for a file that is compared as a whole."""
    old: Any
    new: Any
    affects: tuple[Group, ...]
    follows_from: str | None
    """`FILE:key` of the change that this one only repeats."""

    @property
    def group(self) -> Group:
        return self.affects[0]


def changes_between(old: RenderedDirectory, new: RenderedDirectory) -> tuple[Change, ...]:
    """By group, then in the order of the files."""
    before, after = dict(settings_of(old)), dict(settings_of(new))
    differing = [key for key in {**before, **after} if before.get(key, ABSENT) != after.get(key, ABSENT)]
    # What only repeats everything else must not be what something else is said to follow from.
    own = [key for key in differing if ANYTHING not in effect_of(key).mirrors]
    changes = []
    for key in differing:
        file, _, path = key.partition(":")
        was, now = before.get(key, ABSENT), after.get(key, ABSENT)
        source = follows_from(key, was is ABSENT or now is ABSENT, own)
        if source is None and key == "PLAN.md:" and old.plan != new.plan:
            source = "plan.json:predicted"
        if is_secret_name(path.rpartition(".")[2]):
            was, now = _hidden(was, "before"), _hidden(now, "now")
        changes.append(Change(file, path, was, now, effect_of(key).affects, source))
    return tuple(sorted(changes, key=lambda change: GROUPS.index(change.group)))


def _hidden(value: Any, when: str) -> Any:
    """What stands for a secret that somebody wrote into a file."""
    return f"(a secret {when})" if isinstance(value, str) and value else value


def settings_of(directory: RenderedDirectory) -> Iterator[tuple[str, Any]]:
    """(`FILE:key.path`, value) of every setting; lists are values."""
    yield from flatten("ds_config.json:", directory.ds_config)
    yield from flatten("train.yaml:", directory.experiment.model_dump(mode="json"))
    plan = directory.plan.model_dump(mode="json")
    yield from flatten("plan.json:", {key: plan[key] for key in plan if key not in NOT_SETTINGS + ONE_VALUE})
    for key in ONE_VALUE:
        yield f"plan.json:{key}", plan[key]
    for name in TEXT_FILES:
        yield f"{name}:", directory.files.get(name, ABSENT)


def flatten(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key path behind `prefix`, value) of each leaf; an empty mapping is a leaf."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flatten(f"{prefix}{key}.", item)
        else:
            yield f"{prefix}{key}", item
