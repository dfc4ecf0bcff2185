from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.ablate.selectors import Pin, PinSet, RenderedPlan, Top, parse_selector, parse_selectors
from vdsgen.errors import InputError
from vdsgen.spec.constraints import Constraints

KEYS = sorted(Constraints.model_fields)
NAMED = {
    "offload_optimizer": ["none", "cpu", "nvme"],
    "offload_parameters": ["none", "cpu", "nvme"],
    "communication_dtype": ["fp32", "bf16", "fp16"],
    "gradient_compression": ["none", "int8"],
    "recompute": ["full", "selective"],
    "activation_compression": ["none", "int8", "fp8"],
}
YES_OR_NO = ["offload_activations", "zero_quantized_gradients", "zero_quantized_weights"]
NUMBERS = [key for key in KEYS if key not in (*NAMED, *YES_OR_NO)]
Axes = dict[str, list[Pin | None]]


def values_of(key: str) -> st.SearchStrategy[Pin]:
    if key in YES_OR_NO:
        return st.booleans()
    if key in NAMED:
        return st.sampled_from(NAMED[key])
    return st.integers(1, 3 if key == "zero_stage" else 9999)


@st.composite
def axes(draw: st.DrawFn) -> Axes:
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    return {
        key: draw(st.lists(st.none() | values_of(key), min_size=1, max_size=4, unique=True)) for key in keys
    }


@given(axes(), st.booleans(), st.booleans())
def test_a_grid_is_every_combination_in_order(grid: Axes, spaces: bool, prefixed: bool) -> None:
    space, prefix = " " if spaces else "", "constraints." if prefixed else ""
    text = ";".join(
        f"{space}{prefix}{key}{space}=" + ",".join(f"{space}{written(value)}" for value in values)
        for key, values in grid.items()
    )
    found = parse_selector(f"grid:{text}")
    assert all(isinstance(one, PinSet) for one in found)
    expected = [dict(zip(grid, point, strict=True)) for point in product(*grid.values())]
    assert [dict(one.pins) for one in found if isinstance(one, PinSet)] == expected


def written(value: Pin | None) -> str:
    if value is None:
        return "auto"
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(st.text(max_size=30) | st.text("grid:top=,;auto0123456789", max_size=30))
def test_any_text_is_a_selector_or_bad_input(text: str) -> None:
    try:
        found = parse_selector(text)
    except InputError as error:
        assert all(problem.key == "--plans" and problem.remedy for problem in error.problems)
    except (ValueError, OSError) as error:
        pytest.fail(f"{text!r}: {error}")
    else:
        assert found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top:0", "needs a number from 1"),
        ("top:x", "needs a number from 1"),
        ("top:999999999999999999999", "needs a number from 1"),
        ("best", "no selector, and no file or folder"),
        ("x" * 5000, "no selector, and no file or folder"),
        ("grid:", "is not KEY=VALUE"),
        ("grid:zero_stage", "is not KEY=VALUE"),
        ("grid:zero_stage=4", "zero_stage=4: "),
        ("grid:zero_stage=1;zero_stage=2", "given twice"),
        ("grid:zero_stage=-1", "no whole number"),
        ("grid:zero_stage=1.5", "no whole number"),
        ("grid:zerostage=1", "did you mean zero_stage?"),
        ("grid:offload_optimizer=cpus", "did you mean cpu?"),
        ("grid:offload_optimizer=1", "give none, cpu, nvme, or auto"),
        ("grid:offload_activations=yes", "give true, false, or auto"),
        ("grid:offload_activations=1", "is none of its values"),
        (
            "grid:" + ";".join(f"{key}={','.join(map(str, range(1, 8)))}" for key in NUMBERS[:3]),
            " = 343",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_selector(text)
    assert message in str(caught.value)


def test_problems_of_all_selectors_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        parse_selectors(["top:0", "top:2", "grid:x=1"])
    assert len(caught.value.problems) == 2
    assert parse_selectors(["top:2", str(tmp_path)]) == [Top(2), RenderedPlan(tmp_path)]


def test_a_file_gives_its_sets_of_pins(tmp_path: Path) -> None:
    path = tmp_path / "plans.yaml"
    path.write_text(
        "plans:\n  - constraints: {pipeline_parallel_size: 2, data_parallel_size: null}\n  - name: plain\n"
    )
    first, second = parse_selector(str(path))
    assert isinstance(first, PinSet) and isinstance(second, PinSet)
    assert dict(first.pins) == {"data_parallel_size": None, "pipeline_parallel_size": 2}
    assert (dict(second.pins), second.name) == ({}, "plain")


def test_a_bad_file_is_reported_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "plans.yaml"
    path.write_text("plans:\n  - constraints:\n      zero_stage: 7\n")
    with pytest.raises(InputError) as caught:
        parse_selector(str(path))
    assert caught.value.problems[0].line == 3
