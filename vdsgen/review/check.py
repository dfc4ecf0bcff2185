"""Whether a rendered directory still follows from what it was rendered from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdsgen.errors import NoPlanFitsError, VdsgenError
from vdsgen.render.others import OTHER_FILES, render_others
from vdsgen.render.render import files_of, render_plan
from vdsgen.review.directory import RenderedDirectory
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.secrets import masked

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
class Checked:
    """What `vdsgen check` found."""

    label: str
    causes: tuple[str, ...]
    """What is different from when the plan was made; empty where nothing is."""
    findings: tuple[Finding, ...]

    @property
    def fresh(self) -> bool:
        return not self.findings


def check(directory: RenderedDirectory, replan: Replan, template_dir: Path | None = None) -> Checked:
    """Plans again from train.yaml and the pool in plan.json, renders, and compares bytes.

    Raises InputError where the recorded inputs cannot be planned for at all.
    """
    plan, experiment = directory.plan, directory.experiment
    changed = input_changes(plan, experiment)
    # With other inputs, what the plan once rendered to cannot be known: then nothing counts as edited.
    also = [OTHER_FILES[name] for name in directory.files if name in OTHER_FILES]
    recorded = None if changed else _recorded(plan, experiment, template_dir, also)
    try:
        today = replan(experiment, plan.inputs.pool)
    except NoPlanFitsError as error:
        causes = (*changed, f"no plan fits any more: {error.message}")
        return Checked(directory.label, causes, tuple(Finding(name, "stale", ()) for name in files_of(plan)))
    expected = render_plan(today, experiment, template_dir) | render_others(also, today, experiment)
    edited = {"plan.json"} if not changed and _was_edited(plan, today) else set()
    if recorded is not None:
        edited |= {name for name in recorded if directory.files.get(name) != recorded[name]}
    return Checked(
        label=directory.label,
        causes=(*changed, *_planner_changes(plan, today)),
        findings=tuple(_findings(directory.files, expected, edited)),
    )


def _recorded(
    plan: Plan, experiment: Experiment, template_dir: Path | None, also: Collection[str]
) -> dict[str, bytes] | None:
    """What the plan renders to; None where somebody made figures of it that no plan has."""
    try:
        return render_plan(plan, experiment, template_dir) | render_others(also, plan, experiment)
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
    before, after = (masked(_printable(text)).split("\n") for text in (found, expected))
    return tuple(difflib.unified_diff(before, after, f"{name} (found)", f"{name} (rendered)", lineterm=""))


def _printable(text: bytes) -> str:
    """Without what a terminal would obey instead of show."""
    characters = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in characters)


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
