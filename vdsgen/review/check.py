"""Whether a rendered directory still follows from what it was rendered from."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from vdsgen.errors import NoPlanFitsError, VdsgenError
from vdsgen.render.others import OTHER_FILES, render_others
from vdsgen.render.render import files_of, render_plan
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.printable import printable
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.planned_keys import leaves
from vdsgen.spec.secrets import masked
from vdsgen.spec.source import dotted

Rerender = Callable[[Plan, Experiment, "Path | None", Sequence[str]], Mapping[str, bytes]]
"""Renders a plan and its experiment, with templates of a lab's own, and for other trainers too."""

Replan = Callable[[Experiment, Pool], Plan]
"""Plans for a resolved experiment and a pool, as `vdsgen generate` does."""

Verdict = Literal["stale", "edited", "missing"]
"""stale: as it was rendered, but today's would differ. edited: not what its own plan renders to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not what rendering it today would give."""

    name: str
    verdict: Verdict
    lines: tuple[str, ...]
    """Unified diff from the file to what it should be."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a directory is to be rendered from, where a tree's manifest says it."""

    experiment: Experiment
    """Resolved."""
    pool: Pool
    experiment_file: str
    """What messages call it."""
    lab_file: str
    also: tuple[str, ...] = ()
    """Other trainers that it has files for."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `vdsgen check` found."""

    label: str
    causes: tuple[str, ...]
    """What is different from when the plan was made; empty where nothing is."""
    findings: tuple[Finding, ...]
    expected: Mapping[str, bytes] = field(default_factory=dict)
    """What rendering today gives; empty where no plan fits any more."""
    other_version: bool = False
    """Whether another version of vdsgen made it."""
    perhaps_edited: frozenset[str] = frozenset()
    """Files of which cannot be told whether somebody edited them: what they were rendered to is not known."""

    @property
    def fresh(self) -> bool:
        return not self.findings

    @property
    def edited(self) -> tuple[str, ...]:
        """Files that somebody edited."""
        return tuple(finding.name for finding in self.findings if finding.verdict == "edited")


def check(
    directory: RenderedDirectory,
    replan: Replan,
    template_dir: Path | None = None,
    sources: Sources | None = None,
    rerender: Rerender | None = None,
) -> Checked:
    """Plans again, renders, and compares bytes: from the sources where they are known, else from train.yaml
    and the pool in plan.json.

    Raises InputError where these inputs cannot be planned for at all.
    """
    rerender = rerender or rendered
    plan, experiment = directory.plan, directory.experiment
    changed = input_changes(plan, experiment)
    also = [OTHER_FILES[name] for name in directory.files if name in OTHER_FILES]
    if sources is None:
        wanted, pool = experiment, plan.inputs.pool
        causes: tuple[str, ...] = changed
    else:
        wanted, pool, also = sources.experiment, sources.pool, list(dict.fromkeys((*also, *sources.also)))
        causes = (*changed, *source_changes(plan, experiment, sources))
    try:
        today = replan(wanted, pool)
    except NoPlanFitsError as error:
        causes = (*causes, f"no plan fits any more: {error.message}")
        return Checked(directory.label, causes, tuple(Finding(name, "stale", ()) for name in files_of(plan)))
    expected = rerender(today, wanted, template_dir, also)
    other_version = plan.generator != today.generator
    differing = {name for name in expected if directory.files.get(name) not in (None, expected[name])}
    edited, perhaps = set[str](), set[str]()
    if differing or expected.keys() - directory.files.keys():
        recorded = None if changed else _recorded(directory, template_dir, also, rerender)
        edited, perhaps = _edited(directory, today, recorded, changed, with_sources=sources is not None)
    if other_version:
        edited, perhaps = set(), perhaps | edited
    return Checked(
        label=directory.label,
        causes=(*causes, *_planner_changes(plan, today)),
        findings=tuple(_findings(directory.files, expected, edited)),
        expected=expected,
        other_version=other_version,
        perhaps_edited=frozenset(perhaps & differing),
    )


def rendered(
    plan: Plan, experiment: Experiment, template_dir: Path | None, also: Sequence[str]
) -> dict[str, bytes]:
    """As `vdsgen generate` renders."""
    return render_plan(plan, experiment, template_dir) | render_others(also, plan, experiment)


def _edited(
    directory: RenderedDirectory,
    today: Plan,
    recorded: Mapping[str, bytes] | None,
    changed: Sequence[str],
    *,
    with_sources: bool,
) -> tuple[set[str], set[str]]:
    """(files that somebody edited, files that somebody may have edited). `recorded` is what the directory's
    own plan renders to."""
    plan, experiment = directory.plan, directory.experiment
    if changed:
        # With other inputs, what the plan once rendered to cannot be known. Where the inputs come from
        # elsewhere, their record was edited; else it is what counts.
        everything = set(directory.files)
        if not with_sources:
            return set(), everything - {"train.yaml", "plan.json"}
        record = {"train.yaml"} if sha256_of(experiment) != plan.inputs.experiment_sha256 else set()
        if sha256_of(plan.inputs.pool) != plan.inputs.lab_sha256:
            record.add("plan.json")
        return record, everything - record
    edited = {"plan.json"} if _was_edited(plan, today) else set()
    if recorded is None:
        return edited, set(directory.files)
    there = [name for name in recorded if name in directory.files or name not in OTHER_FILES]
    return edited | {name for name in there if directory.files.get(name) != recorded[name]}, set()


def source_changes(plan: Plan, experiment: Experiment, sources: Sources) -> tuple[str, ...]:
    """What the experiment and the lab say now, beside what the directory was rendered from."""
    from vdsgen.planner.saving import with_interval

    now = with_interval(sources.experiment, plan.saving)
    return (
        *_changes_of(sources.experiment_file, experiment, now),
        *_changes_of(sources.lab_file, plan.inputs.pool, sources.pool),
    )


MOST_KEYS = 4


def _changes_of(file: str, before: BaseModel, now: BaseModel) -> tuple[str, ...]:
    was, is_now = (dict(leaves(spec.model_dump(mode="json"))) for spec in (before, now))
    changes = [
        f"{dotted(path)} {_short(was.get(path, _ABSENT))} -> {_short(is_now.get(path, _ABSENT))}"
        for path in {**was, **is_now}
        if was.get(path, _ABSENT) != is_now.get(path, _ABSENT)
    ]
    if not changes:
        return ()
    more = f" and {len(changes) - MOST_KEYS} more" if len(changes) > MOST_KEYS else ""
    return (f"{file} was changed since: {', '.join(changes[:MOST_KEYS])}{more}",)


_ABSENT = object()


def _short(value: object) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(masked(text))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _recorded(
    directory: RenderedDirectory, template_dir: Path | None, also: Sequence[str], rerender: Rerender
) -> Mapping[str, bytes] | None:
    """What the plan renders to; None where somebody made figures of it that no plan has."""
    try:
        return rerender(directory.plan, directory.experiment, template_dir, also)
    except (VdsgenError, AssertionError, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _was_edited(plan: Plan, today: Plan) -> bool:
    """Planning gives the same plan for the same inputs: another one in plan.json was written by hand."""
    return plan != today and plan.inputs == today.inputs and plan.generator == today.generator


def input_changes(plan: Plan, experiment: Experiment) -> tuple[str, ...]:
    """Recorded inputs that no longer have the hash they were planned with."""
    causes = []
    if sha256_of(experiment) != plan.inputs.experiment_sha256:
        causes.append("train.yaml does not say what was planned for: it was edited since")
    if sha256_of(plan.inputs.pool) != plan.inputs.lab_sha256:
        causes.append("the pool in plan.json is not what was planned for: it was edited since")
    return tuple(causes)


def _planner_changes(plan: Plan, today: Plan) -> Iterator[str]:
    if plan.generator != today.generator:
        yield f"it was planned by {plan.generator}, this is {today.generator}"
    if plan.inputs.profile_sha256 != today.inputs.profile_sha256:
        yield f"the layer profile of {plan.model.name} is another than it was planned with"


def _findings(
    files: Mapping[str, bytes], expected: Mapping[str, bytes], edited: Collection[str]
) -> Iterator[Finding]:
    for name in expected:
        found = files.get(name)
        if found == expected[name]:
            continue
        verdict: Verdict = "missing" if found is None else "edited" if name in edited else "stale"
        yield Finding(name, verdict, _difference(name, found or b"", expected[name]))


def _difference(name: str, found: bytes, expected: bytes) -> tuple[str, ...]:
    before, after = (masked(_text(content)).split("\n") for content in (found, expected))
    return tuple(difflib.unified_diff(before, after, f"{name} (found)", f"{name} (rendered)", lineterm=""))


def _text(content: bytes) -> str:
    return printable(content.decode("utf-8", "backslashreplace"))


def as_text(checked: Checked) -> str:
    """For the terminal: one line a file, its lines below."""
    if checked.fresh and not checked.causes:
        return f"{checked.label}: fresh\n"
    lines = [f"{checked.label}: {'fresh' if checked.fresh else 'not fresh'}"]
    lines += [f"  because {cause}" for cause in checked.causes]
    words = {
        "stale": "stale: rendering it again gives something else",
        "edited": "edited by hand: it is not what its plan renders to",
        "missing": "missing",
    }
    for finding in checked.findings:
        lines += ["", f"{finding.name}: {words[finding.verdict]}", *(f"  {line}" for line in finding.lines)]
    if not checked.fresh:
        lines += ["", "-> generate the directory again, or take the edits back; pins go into the experiment"]
    return "\n".join(lines) + "\n"
