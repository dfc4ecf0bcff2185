"""The picture of a step: its areas add up to the peak, and it is the same for the same plan."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from vdsgen.cost.timeline import Moment
from vdsgen.report.memory_timeline import StageStep, memory_timeline, timeline_of
from vdsgen.report.plan.held import instruction_peaks

EXAMPLE = Path(__file__).parents[2] / "examples/rendered/article-1.5b-pinned@four-24gb"
SVG = "{http://www.w3.org/2000/svg}"


def moment(micro_batch: int, activations_bytes: int, layer: int = 0) -> Moment:
    return Moment("BackwardPass", micro_batch, layer, False, 100, 20, 300, activations_bytes, 0, 0, 0, 0, 0)


def test_each_instruction_is_shown_where_it_holds_most() -> None:
    moments = [moment(0, 5, 1), moment(0, 9, 0), moment(1, 7, 1), moment(1, 7, 0)]
    assert instruction_peaks(moments) == (moments[1], moments[2])


def test_areas_stack_up_to_what_is_held_and_titles_are_escaped() -> None:
    step = StageStep("stage 0", (moment(0, 80), moment(1, 580)), reserve_bytes=500)
    text = memory_timeline("<a & b>", [step], capacity_bytes=1500)
    edges = [
        [float(point.split(",")[1]) for point in str(area.get("points")).split()]
        for area in ElementTree.fromstring(text).iter(f"{SVG}polygon")
    ]
    floor, first, second = edges[0][-1], edges[-1][0], edges[-1][2]
    assert (floor - second) / (floor - first) == pytest.approx(1500 / 1000, rel=0.01)
    limit = next(ElementTree.fromstring(text).iter(f"{SVG}line")).get("y1")
    assert float(str(limit)) == second
    assert len(edges) == 5, "components that are never there are not drawn"


def test_a_rendered_directory_has_one_row_a_stage() -> None:
    text = timeline_of(EXAMPLE)
    labels = [element.text for element in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert {"stage 0", "stage 1", "reserve", "pipeline buffers"} <= set(labels)
    assert text == timeline_of(EXAMPLE)
