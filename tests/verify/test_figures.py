"""Planned beside traced: what is within tolerance, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.spec.plan import StageMemory
from vdsgen.verify.figures import NEGLIGIBLE_FRACTIONS, TOLERANCES, Component, StageTrace, all_within, compare

SIZES = {
    "parameters_bytes": 3_000_000_000,
    "gradients_bytes": 2_000_000_000,
    "optimizer_bytes": 6_000_000_000,
    "activations_bytes": 5_000_000_000,
    "workspace_bytes": 4_000_000_000,
    "communication_bytes": 1_000_000_000,
}
PEAK = sum(SIZES.values()) - SIZES["workspace_bytes"]
HOST = 7_000_000_000
RESERVE = 900_000_000
COMPONENTS = sorted(TOLERANCES)


def trace(**changes: int) -> StageTrace:
    return StageTrace(
        stage=1,
        data_ranks=(0,),
        layers=(4, 8),
        optimizer_class="BF16_Optimizer",
        micro_batches=3,
        **{**SIZES, "peak_bytes": PEAK, "host_bytes": HOST, **changes},
        peak_phase="compute",
        build_peak_bytes=1,
        seconds=1.0,
        resident_bytes=1,
    )


def planned(**changes: int) -> StageMemory:
    return StageMemory(**{**SIZES, "reserve_bytes": RESERVE, "peak_bytes": PEAK + RESERVE, **changes})


def test_the_same_bytes_are_within_and_the_reserve_is_no_part_of_the_peak() -> None:
    rows = compare(planned(), trace(), planned_host_bytes=HOST)
    assert all_within(rows)
    assert {row.component for row in rows} == set(TOLERANCES)
    assert {row.ratio for row in rows} == {1.0}


@given(st.sampled_from(COMPONENTS), st.sampled_from([-1, 1]), st.floats(0.0, 3.0))
def test_a_figure_is_refused_exactly_beyond_its_tolerance(
    component: Component, sign: int, tolerances: float
) -> None:
    true = {"peak": PEAK, "host": HOST}.get(component) or SIZES[f"{component}_bytes"]
    allowed = max(TOLERANCES[component] * true, NEGLIGIBLE_FRACTIONS[component] * PEAK)
    off = round(sign * tolerances * allowed)
    figure = {f"{component}_bytes": true + off + (RESERVE if component == "peak" else 0)}
    host = figure.pop("host_bytes", HOST)
    rows = compare(planned(**figure), trace(), planned_host_bytes=host)
    wrong = [row.component for row in rows if not row.within]
    assert wrong == ([component] if abs(off) > allowed else [])


def test_a_component_that_nobody_feels_may_be_off_by_any_factor() -> None:
    rows = compare(planned(communication_bytes=PEAK // 2000), trace(communication_bytes=0))
    communication = next(row for row in rows if row.component == "communication")
    assert communication.ratio is None
    assert communication.within


@pytest.mark.parametrize("component", COMPONENTS)
def test_tolerances_are_those_that_were_promised(component: Component) -> None:
    promised = {"parameters": 0.01, "gradients": 0.01, "optimizer": 0.01, "host": 0.01}
    promised["activations"] = 0.03
    assert TOLERANCES[component] == promised.get(component, 0.05)
