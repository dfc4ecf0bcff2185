"""The campaign itself, small: a kill and a stopped rank in one run of the real launcher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.campaigns.kills import LEGS, lost, render, run_leg, section, shared
from tests.campaigns.launched import held_out_losses, losses

LEG: dict[str, Any] = {
    "name": "a plan",
    "launcher": "ssh",
    "processes": "started",
    "kills": 2,
    "while_saving": 1,
    "moments": {"save": 2},
    "victims": {"rank SIGKILL": 2},
    "steps": 9,
    "exit_code": 0,
    "equal": True,
    "lost_more_than_since_save": 0,
    "lost_steps": [1, 4],
    "gone_seconds": [1.0, 2.0],
    "step_seconds": [],
    "stopped": 1,
    "named": 1,
    "named_seconds": [8.0],
    "false_hangs": 0,
}


def found(**changes: Any) -> dict[str, Any]:
    return {"seed": 1, "save_every_steps": 15, "hang_seconds": 6.0, "legs": [LEG | changes, LEG]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"equal": False}, "another sequence of losses"),
        ({"exit_code": 137}, "exit code 137"),
        ({"lost_more_than_since_save": 1}, "lost more than the steps since the last save"),
        ({"named": 0}, "0 of 1 hangs named"),
        ({"false_hangs": 1}, "1 false"),
    ],
)
def test_whatever_goes_wrong_is_a_loss(changes: dict[str, Any], said: str) -> None:
    faults = lost(found(**changes))
    assert len(faults) == bool(changes)
    assert said in "".join(faults)


def test_the_page_has_the_figures() -> None:
    text = section(found())
    assert text.startswith("## Ranks, launchers and hosts killed\n\n4 kills of runs")
    assert "| a plan | ssh | 2 (1) | 9 | yes | 4 | 1.5 / 2.0 |  |" in text


@settings(max_examples=30)
@given(st.integers(0, 300), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_kills_are_shared_out_without_rest(total: int, weights: list[int]) -> None:
    parts = shared(total, weights)
    assert sum(parts) == total
    assert all(
        abs(part - total * weight / sum(weights)) < 1 for part, weight in zip(parts, weights, strict=True)
    )


@pytest.mark.slow
def test_a_run_that_is_killed_and_stopped_trains_as_if_nothing_had_been(tmp_path: Path) -> None:
    render(LEGS[0], tmp_path)
    figures = run_leg(LEGS[0], 1, 1, 5, tmp_path, tmp_path / "log")
    assert lost({"legs": [figures]}) == [], (tmp_path / "run.shown").read_text()
    assert (figures["kills"], figures["named"]) == (1, 1)
    starts = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert len(starts) == 3
    assert sum("hang: " in start.get("end", "") for start in starts) == 1
    assert losses(tmp_path / "run")[-1][0] == figures["steps"] > 0
    assert held_out_losses(tmp_path / "run")
    stacks = "".join(path.read_text() for path in (tmp_path / "run" / "logs").glob("*_rank*.log"))
    assert "most recent call first" in stacks
    assert not list((tmp_path / "run" / "checkpoints").glob("*.before*"))
