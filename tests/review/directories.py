"""Rendered directories to review."""

from __future__ import annotations

from pathlib import Path

from tests.render.plans import plan_of, small_experiment
from vdsgen.render.render import render_plan
from vdsgen.render.write import write_files
from vdsgen.review.directory import RenderedDirectory, read_directory
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


def plan_for(experiment: Experiment, plan: Plan | None = None) -> Plan:
    """`plan` with the hashes that planning for `experiment` would record."""
    plan = plan or plan_of(accumulation=4)
    hashes = {"experiment_sha256": sha256_of(experiment), "lab_sha256": sha256_of(plan.inputs.pool)}
    return plan.model_copy(update={"inputs": plan.inputs.model_copy(update=hashes)})


def rendered(path: Path, plan: Plan | None = None, experiment: Experiment | None = None) -> RenderedDirectory:
    experiment = experiment or small_experiment()
    write_files(path, render_plan(plan_for(experiment, plan), experiment))
    return read_directory(path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new, 1))
