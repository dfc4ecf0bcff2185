"""The report of one run, or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vdsgen.planner.words import duration, percent, rate, seconds
from vdsgen.report.page import page
from vdsgen.report.run.happenings import happenings_section
from vdsgen.report.run.learning import learning_section
from vdsgen.report.run.memory import memory_section
from vdsgen.report.run.samples import samples_section
from vdsgen.report.run.schedule import schedule_section
from vdsgen.report.run.speed import flops_utilization, speed_section, typical_seconds
from vdsgen.report.run.subject import RunSubject, read_subjects
from vdsgen.report.run.trace import run_trace
from vdsgen.report.section import Fact, Report, Section, Subject, Tone
from vdsgen.runs.memory import memory_of
from vdsgen.runs.notices import notices
from vdsgen.runs.state import State

STATE_WORDS: dict[State, str] = {
    "waiting": "has not started",
    "starting": "starting",
    "running": "goes on",
    "silent": "no end is recorded",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
}
GOOD: tuple[State, ...] = ("finished",)
BAD: tuple[State, ...] = ("failed",)


def run_report(runs: Sequence[Path]) -> bytes:
    """The page of these run directories, one or two. Raises VdsgenError where one is none."""
    return page(report_of(read_subjects(runs)))


def trace_of_run(run: Path) -> bytes:
    """Its traced steps beside the simulated one. Raises VdsgenError where nothing was traced."""
    (subject,) = read_subjects([run])
    return run_trace(subject)


def report_of(subjects: Sequence[RunSubject]) -> Report:
    sections: list[Section | None] = [
        learning_section(subjects),
        samples_section(subjects),
        speed_section(subjects),
        schedule_section(subjects),
        memory_section(subjects),
        happenings_section(subjects),
    ]
    return Report(
        title=" and ".join(subject.name for subject in subjects),
        subjects=[_headline(subject) for subject in subjects],
        sections=[section for section in sections if section is not None],
        footer=[line for subject in subjects for line in _origin(subject)],
    )


def _headline(subject: RunSubject) -> Subject:
    data, now = subject.data, subject.standing
    tone: Tone = "good" if now.state in GOOD else "bad" if now.state in BAD else "plain"
    of = f" of {now.steps:,}" if now.steps else ""
    why = now.why if now.state in ("failed", "stopped", "running") else ""
    facts = [Fact(STATE_WORDS[now.state], f"step {now.step:,}{of}", why, tone), *_loss_facts(subject)]
    facts += _speed_facts(subject)
    ratios = [rank.ratio for rank in memory_of(data) if rank.ratio is not None]
    if ratios:
        facts.append(Fact("memory", f"{max(ratios):.2f} x", "of the plan, the fullest rank"))
    restarts = max(0, len(data.record.starts) - 1) if data.record else 0
    if restarts:
        facts.append(Fact("started again", f"{restarts} x"))
    grave = [
        notice for notice in notices(data, now) if notice.severity == "error" and notice.kind != "failed"
    ]
    if grave:
        facts.append(Fact("alarms", f"{len(grave)}", grave[0].message[:160], "bad"))
    layout = "" if data.record is None or data.record.layout is None else str(data.record.layout)
    devices = sorted(set(data.record.devices)) if data.record else []
    words = ", ".join([layout, *devices[:3]]) if layout else ", ".join(devices[:3])
    return Subject(name=subject.name, facts=facts, words=words)


def _loss_facts(subject: RunSubject) -> list[Fact]:
    data = subject.data
    known = [step.loss for step in data.steps if step.loss is not None]
    facts = []
    if known:
        tenth = max(1, len(known) // 10)
        facts.append(Fact("loss", f"{sum(known[-tenth:]) / tenth:.4f}", "mean of the last tenth"))
    held_out = [line for line in data.held_out if line.loss is not None]
    if held_out:
        weights = "ema" if any(line.weights == "ema" for line in held_out) else held_out[-1].weights
        last = [line for line in held_out if line.weights == weights][-1]
        facts.append(Fact("held-out loss", f"{last.loss:.4f}", f"after step {last.step:,}"))
    return facts


def _speed_facts(subject: RunSubject) -> list[Fact]:
    typical, predicted, plan = typical_seconds(subject), subject.predicted_step_seconds, subject.data.plan
    if typical is None:
        return []
    ratio = f"{typical / predicted:.2f} x the predicted {seconds(predicted)}" if predicted else ""
    facts = [Fact("a step", seconds(typical), ratio)]
    if plan is not None and typical:
        facts.append(Fact("throughput", f"{rate(plan.batch.global_batch_size / typical)} samples/s"))
    utilization = flops_utilization(subject)
    if utilization is not None and plan is not None:
        facts.append(
            Fact(
                "utilisation",
                percent(utilization),
                f"of the GPUs' peak; {percent(plan.predicted.model_flops_utilization)} predicted",
            )
        )
    spent = sum(step.step_seconds for step in subject.data.steps)
    facts.append(Fact("time in steps", duration(spent)))
    return facts


def _origin(subject: RunSubject) -> list[str]:
    record = subject.data.record
    if record is None:
        return []
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))
    return [f"{subject.prefix}{versions}"] if versions else []
