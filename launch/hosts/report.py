"""The outcome of a pre-flight, as a document and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from vdsgen.launch.hosts.expected import Expected
from vdsgen.launch.hosts.facts import HostFacts
from vdsgen.launch.hosts.finding import Finding, by_severity, errors
from vdsgen.launch.hosts.hardware import device_summary
from vdsgen.launch.hosts.links import LinkRate, slowest
from vdsgen.launch.hosts.rehearsal import Rehearsal
from vdsgen.launch.hosts.survey import Survey
from vdsgen.launch.hosts.words import names, rate, size
from vdsgen.spec.base import NonNegativeFloat, Spec

State = Literal["ok", "note", "warning", "error", "skipped"]


class Check(Spec):
    """One line of the report."""

    name: str
    state: State
    summary: str
    """What was found, or why nothing was looked at."""


class Report(Spec):
    """What `vdsgen preflight --json` prints."""

    ready: bool
    """No error was found."""
    seconds: NonNegativeFloat
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    """The worst first."""
    hosts: dict[str, HostFacts]
    clock_offsets_seconds: dict[str, float]
    """How far each host's clock is ahead of this machine's."""
    links: tuple[LinkRate, ...]
    rehearsal: Rehearsal | None
    part_seconds: dict[str, float]
    """What each part took."""


WELL_OR_NOT = ("shared folder", "ports", "links", "rehearsal")
"""Checks whose summary says that all is well."""


def report_of(
    expected: Expected,
    survey: Survey,
    rehearsal: Rehearsal | None,
    *,
    skipped: dict[str, str],
    seconds: float,
) -> Report:
    """`skipped`: checks that were not made, and why."""
    findings = by_severity(_gathered(survey.findings))
    summaries = dict(_summaries(expected, survey, rehearsal)) | skipped
    worst: dict[str, State] = {finding.check: finding.severity for finding in reversed(findings)}
    checks = []
    for name in dict.fromkeys([*summaries, *worst]):
        state = worst.get(name) or ("skipped" if name in skipped else "ok")
        summary = summaries.get(name, "")
        if name not in skipped and state == "error" and name in WELL_OR_NOT:
            summary = ""
        checks.append(Check(name=name, state=state, summary=summary or "see below"))
    return Report(
        ready=not errors(findings),
        seconds=seconds,
        checks=tuple(checks),
        findings=tuple(findings),
        hosts=survey.facts,
        clock_offsets_seconds={host: offset.seconds for host, offset in survey.offsets.items()},
        links=tuple(survey.rates),
        rehearsal=rehearsal,
        part_seconds=survey.seconds,
    )


def _gathered(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The same thing of several hosts is told once."""
    hosts: dict[Finding, list[str]] = {}
    for finding in findings:
        hosts.setdefault(finding.model_copy(update={"host": ""}), []).append(finding.host)
    for finding, names_ in hosts.items():
        yield finding.model_copy(update={"host": ", ".join(dict.fromkeys(names_))})


def _summaries(expected: Expected, survey: Survey, rehearsal: Rehearsal | None) -> Iterator[tuple[str, str]]:
    facts = survey.facts
    count = len(expected.hosts)
    yield "reach", f"{len(facts)} of {count} host{'s' * (count > 1)} answered"
    if not facts:
        return
    first = next(iter(facts.values()))
    shown = ("python", "vdsgen", "torch", "deepspeed", "CUDA", "NCCL")
    yield "versions", ", ".join(f"{name} {first.versions[name]}" for name in shown if name in first.versions)
    yield "rendered directory", f"{len(first.rendered)} files, by their bytes"
    if not expected.on_cpu:
        kinds = dict.fromkeys(device_summary(one) for one in facts.values())
        yield "devices", "; ".join(kinds) + (f" (driver {first.driver})" if first.driver else "")
    free = min(one.memory_available_bytes for one in facts.values())
    cores = min(one.cores for one in facts.values())
    yield "memory", f"{size(free)} free of host memory, {cores} cores (the least of any host)"
    files = min((one.open_files for one in facts.values() if one.open_files is not None), default=None)
    shared = [one.shared_memory.free_bytes for one in facts.values() if one.shared_memory is not None]
    open_files = "any number of open files" if files is None else f"{files} open files"
    yield "limits", open_files + (f", {size(min(shared))} of /dev/shm" if shared else "")
    disks = [one.output for one in facts.values() if one.output is not None]
    if disks:
        least = min(disks, key=lambda disk: disk.free_bytes)
        needed = f", {expected.checkpoints} checkpoint{'s' * (expected.checkpoints > 1)} of "
        needed += size(expected.checkpoint_bytes)
        yield "disks", f"{size(least.free_bytes)} free" + (needed if expected.checkpoints else "")
    yield "inputs", names(sorted({key for one in facts.values() for key in one.inputs}))
    yield "shared folder", f"every host sees what the others write into {expected.output}"
    if survey.offsets:
        furthest = max(survey.offsets.values(), key=lambda offset: abs(offset.seconds))
        yield (
            "clocks",
            f"within {abs(furthest.seconds) * 1000:.1f} ms of this machine's "
            f"(give or take {furthest.uncertainty_seconds * 1000:.1f} ms)",
        )
    yield "ports", "ranks can meet"
    yield "links", "; ".join(_link_words(one) for one in slowest(survey.rates).values())
    if rehearsal is not None:
        yield "rehearsal", _rehearsal_words(rehearsal)


LINK_WORDS = {"intra_node": "in a node", "inter_node": "between nodes", "all_reduce": "all ranks reducing"}


def _link_words(one: LinkRate) -> str:
    found = f"{LINK_WORDS[one.kind]} {rate(one.bytes_per_second)}"
    if one.planned_bytes_per_second is None:
        return found
    return f"{found} ({one.share:.0%} of the plan's {rate(one.planned_bytes_per_second)})"


def _rehearsal_words(rehearsal: Rehearsal) -> str:
    return f"{len(rehearsal.step_seconds)} steps in {rehearsal.seconds:.0f} s, start included"


def text_of(report: Report) -> str:
    """For people: a line a check, what the rehearsal measured, and the findings with what to do."""
    width = max(len(check.name) for check in report.checks)
    lines = [f"  {check.state:8}{check.name:{width + 2}}{check.summary}" for check in report.checks]
    if report.rehearsal is not None:
        lines += ["", *_rehearsal_lines(report.rehearsal)]
    if report.findings:
        lines += ["", *map(str, report.findings)]
    return "\n".join([*lines, "", verdict(report)])


def verdict(report: Report) -> str:
    counted = [
        f"{number} {severity}{'s' * (number > 1)}"
        for severity in ("error", "warning")
        if (number := sum(finding.severity == severity for finding in report.findings))
    ]
    found = f": {', '.join(counted)}" if counted else ""
    return f"{'Ready' if report.ready else 'Not ready'}{found}. {report.seconds:.1f} s."


def _rehearsal_lines(rehearsal: Rehearsal) -> Iterator[str]:
    yield f"  {'rank':>6}  {'host':20}{'planned':>12}{'measured':>12}{'measured / planned':>22}"
    for one in rehearsal.ranks:
        planned, peak = size(one.planned_bytes), size(one.peak_bytes)
        ratio = f"{one.peak_bytes / one.planned_bytes:.2f}" if one.planned_bytes else "-"
        yield f"  {one.rank:>6}  {one.host:20}{planned:>12}{peak:>12}{ratio:>22}"
    yield "  peak memory, without the reserve: " + rehearsal.memory_meaning
    steps = ", ".join(f"{seconds:.2f} s" for seconds in rehearsal.step_seconds)
    yield (
        f"  steps: {steps}; {rehearsal.planned_step_seconds:.2f} s predicted. The first ones are slower: "
        "they allocate, compile and fill caches"
    )
