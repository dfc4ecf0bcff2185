"""The memory picture: its bars add up to the peak, and it is the same for the same plan."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from vdsgen.report.memory_chart import chart_of, memory_chart, segments
from vdsgen.spec.plan import StageMemory

EXAMPLE = Path(__file__).parents[2] / "examples/rendered/article-1.5b-pinned@four-24gb"
SVG = "{http://www.w3.org/2000/svg}"


def stage_memory(activations_bytes: int, workspace_bytes: int) -> StageMemory:
    return StageMemory(
        parameters_bytes=10,
        gradients_bytes=20,
        optimizer_bytes=30,
        activations_bytes=activations_bytes,
        workspace_bytes=workspace_bytes,
        communication_bytes=0,
        reserve_bytes=5,
        peak_bytes=65 + max(activations_bytes, workspace_bytes),
    )


@pytest.mark.parametrize(
    ("activations", "workspace", "name"), [(40, 7, "activations"), (7, 40, "optimizer step")]
)
def test_segments_add_up_to_the_peak_and_name_its_moment(activations: int, workspace: int, name: str) -> None:
    memory = stage_memory(activations, workspace)
    assert dict(segments(memory))[name] == 40
    assert sum(size for _, size in segments(memory)) == memory.peak_bytes


def test_longer_bars_are_drawn_longer_and_titles_are_escaped() -> None:
    text = memory_chart("<a & b>", [("small", stage_memory(1, 1)), ("large", stage_memory(100, 1))], 50)
    bars: dict[str, float] = {}
    for rectangle in ElementTree.fromstring(text).iter(f"{SVG}rect"):
        if rectangle.get("height") == "30":
            top = str(rectangle.get("y"))
            bars[top] = bars.get(top, 0) + float(str(rectangle.get("width")))
    small, large = bars.values()
    assert large / small == pytest.approx(165 / 66, rel=0.01)


def test_a_rendered_directory_has_one_bar_a_stage_and_one_for_plain_training() -> None:
    text = chart_of(EXAMPLE)
    labels = [element.text for element in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert {"plain data parallelism", "plan (2 x 2), stage 0", "plan (2 x 2), stage 1"} <= set(labels)
    assert text == chart_of(EXAMPLE)
