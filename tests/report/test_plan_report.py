"""A plan's report: its figures are the plan's, two plans share axes, and long pipelines stay small."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from tests.report.subjects import RENDERED, deep_subject, example, pair
from vdsgen.planner.pareto import pareto_front
from vdsgen.report.page import page
from vdsgen.report.plan.capacity import capacity_section
from vdsgen.report.plan.checkpointing import checkpointing_section, sweep
from vdsgen.report.plan.choice import choice_section
from vdsgen.report.plan.differences import differences_section
from vdsgen.report.plan.gantt import schedule_section
from vdsgen.report.plan.memory import memory_section
from vdsgen.report.plan.precision import precision_section, precisions
from vdsgen.report.plan.report import plan_report, report_of
from vdsgen.report.plan.step_time import step_time_section
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.plan.topology import topology_section
from vdsgen.report.plan.traffic import gpu_links, node_links
from vdsgen.report.section import Figure, Section
from vdsgen.units import GIB

PINNED, CHOSEN = "article-2.1b-pinned@eight-24gb", "article-2.1b@eight-24gb"


def figure(section: Section | None, name: str) -> Figure:
    assert section is not None
    (found,) = [one for one in section.figures if one.id == name]
    return found


@cache
def pinned() -> PlanSubject:
    return example(PINNED)


def test_memory_over_time_reaches_each_stages_peak_and_stays_in_the_step() -> None:
    data = figure(memory_section([pinned()]), "memory-step").data
    for stage, shown in zip(pinned().plan.stages, data["stages"], strict=True):
        count = len(shown["times"])
        columns = [one if isinstance(one, list) else [one] * count for one in shown["values"]]
        most = max(map(sum, zip(*columns, strict=True)))
        assert most * 1024**2 == pytest.approx(stage.memory.peak_bytes, rel=2e-3)
        assert shown["capacity"] * GIB == pytest.approx(stage.capacity_bytes, rel=1e-4)
        assert shown["times"] == sorted(shown["times"])
        assert 0 <= shown["times"][0] <= shown["times"][-1] <= shown["end"]
    assert data["choice"] == max(range(4), key=lambda place: pinned().plan.stages[place].memory.peak_bytes)


def test_the_schedule_is_shown_with_and_without_checkpointing_and_says_what_does_not_fit() -> None:
    section = schedule_section([pinned()])
    planned, other = section.figures
    assert planned.data["end"] == pytest.approx(pinned().plan.predicted.step_seconds, rel=1e-6)
    assert other.data["end"] < planned.data["end"] == planned.data["longest"] == other.data["longest"]
    assert all(row["again"] > 0 for row in planned.data["rows"])
    assert all(row["again"] == 0 for row in other.data["rows"])
    assert "fits" in planned.title
    assert "does not fit" in other.title
    for row in planned.data["rows"]:
        assert row["letters"].count("F") == row["letters"].count("B") == 16


def test_the_interval_search_has_the_square_root_and_the_articles_claim() -> None:
    """48 blocks, 7 a segment: 85 % less activation memory."""
    subject = example("article-1.5b@four-24gb")
    found = sweep(subject)
    assert (found.blocks, found.square_root) == (48, 7)
    saved = 1 - found.by_interval[6].activations_bytes / found.before.activations_bytes
    assert saved == pytest.approx(0.85, abs=0.01)
    assert found.planned.peak_bytes == subject.plan.stages[0].memory.peak_bytes
    assert found.planned.step_seconds == pytest.approx(subject.plan.predicted.step_seconds)
    least = min(found.by_interval, key=lambda point: point.peak_bytes)
    assert found.by_interval[6].peak_bytes <= 1.02 * least.peak_bytes
    section = checkpointing_section([subject])
    assert "(-85 %)" in section.summary[0]
    assert figure(section, "checkpointing-memory").data["marks"] == [{"at": 7, "label": "√n: 7"}]


def test_causes_add_up_to_the_step() -> None:
    data = figure(step_time_section([pinned()]), "step-time-waterfall").data
    assert sum(data["rises"]) == pytest.approx(data["totals"][-1])
    assert data["bases"][1] == data["rises"][0]


def test_bars_of_capacity_add_up_to_peaks() -> None:
    data = figure(capacity_section([pinned()]), "capacity-bars").data
    totals = [sum(values) for values in zip(*(one["values"] for one in data["series"]), strict=True)]
    peaks = [stage.memory.peak_bytes / GIB for stage in pinned().plan.stages]
    assert totals[1:] == pytest.approx(peaks, abs=0.01)


def test_links_carry_what_ranks_send() -> None:
    """Two data ranks all-reduce a stage's fp16 gradients; stages hand on activations, and gradients back."""
    gpus = gpu_links(pinned())
    assert len(gpus) == 8
    stage = pinned().workload.profile.layers[slice(*pinned().plan.stages[0].layers)]
    parameters = sum(pinned().workload.profile.layer_types[name].trainable_parameters for name in stage)
    assert gpus[0].bytes_by_kind["reduction"] == pytest.approx(2 * 0.5 * 2 * parameters)
    assert gpus[2].bytes_by_kind["transfers"] == pytest.approx(2 * gpus[0].bytes_by_kind["transfers"])
    assert node_links(pinned()) == []
    section = topology_section([pinned()])
    drawing = figure(section, "topology-drawing")
    assert drawing.svg.count('class="chip"') == 8
    assert "style=" not in drawing.svg


def test_stages_on_other_nodes_load_the_network() -> None:
    subject = deep_subject(8, 8)
    assert node_links(subject) == []
    deep = deep_subject(16, 16)
    first, second = node_links(deep)
    assert first.sent_bytes == second.sent_bytes > 0
    assert set(first.bytes_by_kind) == {"transfers"}
    assert "between nodes" in figure(topology_section([deep]), "topology-drawing").svg


def test_precisions_are_costed_with_the_same_stages() -> None:
    found = {one.dtype: one for one in precisions(pinned())}
    assert set(found) == {"fp32", "fp16", "bf16"}
    assert found["fp16"].point.step_seconds == pytest.approx(pinned().plan.predicted.step_seconds)
    assert found["fp32"].point.step_seconds > found["fp16"].point.step_seconds
    section = precision_section([pinned()])
    assert section is not None
    assert "The plan trains in fp16" in section.summary[0]


def test_none_of_what_is_marked_as_unbeaten_is_beaten() -> None:
    section = choice_section([pinned()])
    data = figure(section, "alternatives-plane").data
    points = [tuple(point[:2]) for group in data["groups"] for point in group["points"]]
    for seconds, gib in data["front"]:
        assert not [one for one in points if one[0] < seconds and one[1] < gib]
    assert data["winner"]["at"][0] == pytest.approx(pinned().plan.predicted.step_seconds)
    assert len(pareto_front([pinned().candidate])) == 1
    captions = [table.caption for table in section.tables]
    assert captions == ["Why pipeline 4 x data 2", "What binds the plan", "What lost"]
    assert [row[1] for row in section.tables[0].rows] == list(pinned().plan.reasons)


def test_two_plans_stand_side_by_side_on_the_same_axes() -> None:
    both = pair(PINNED, CHOSEN)
    memory = memory_section(both)
    first, second = (figure(memory, f"memory-step-{letter}").data for letter in "ab")
    assert (first["x_max"], first["y_max"]) == (second["x_max"], second["y_max"])
    assert first["x_max"] == max(subject.step.end_seconds for subject in both)
    assert len({one.data["longest"] for one in schedule_section(both).figures}) == 1
    section = differences_section(both)
    assert section is not None
    rows = {row[0]: row[1:] for row in section.tables[0].rows}
    assert rows["a step takes"] == ["10.43 s", "7.78 s", "-25 %"]
    assert rows["samples a step"] == ["32", "32", ""]
    assert differences_section([pinned()]) is None


def test_the_page_is_deterministic_and_names_no_place() -> None:
    directory = RENDERED / "cpu-demo@cpu-demo"
    content = plan_report([directory])
    assert content == plan_report([directory])
    assert str(RENDERED.parent).encode() not in content
    assert b"Alternatives" in content


def test_names_of_strangers_are_text() -> None:
    hostile = "</script><b onmouseover=alert(1)>"
    subject = deep_subject(8, 8)
    plan = subject.plan.model_copy(update={"model": subject.plan.model.model_copy(update={"name": hostile})})
    text = page(report_of([replace(subject, plan=plan)])).decode()
    assert hostile not in text
    assert "&lt;/script&gt;" in text


def test_a_pipeline_of_64_stages_and_256_micro_batches_is_under_two_megabytes() -> None:
    subject = deep_subject()
    sections = [memory_section([subject]), schedule_section([subject])]
    sizes = [len(json.dumps(dict(one.data))) for section in sections for one in section.figures]
    assert sum(sizes) < 650_000
    note = sections[1].figures[0].note
    assert "70 of the step's 256 micro-batches; the other 186 repeat its steady part" in note
    shown = sections[0].figures[0].data
    assert len(shown["choices"]) == len(shown["stages"]) == 8
    assert len(sections[0].figures[1].data["cells"]) == 64
