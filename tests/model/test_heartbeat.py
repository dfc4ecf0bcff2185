"""What a rank shows of itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.test_hang import beat
from vdsgen.model.heartbeat import Heart
from vdsgen.spec.heartbeat import Beat, beat_file, read_beat


class Clock:
    activity, changes = "reduce", 7


def started(tmp_path: Path, seconds: float = 60.0) -> Heart:
    heart = Heart(seconds)
    heart.start(tmp_path, {"RANK": "3", "VDSGEN_LAUNCH_ID": "id"})
    return heart


def shown(tmp_path: Path) -> Beat:
    found = read_beat(beat_file(tmp_path, 3))
    assert found is not None
    return found


def test_a_rank_shows_what_it_does(tmp_path: Path) -> None:
    heart = started(tmp_path, 0.01)
    heart.watch_steps(Clock())
    heart.begin("step", 12)
    heart.come_on()
    ticks = []
    for _ in range(200):
        time.sleep(0.01)
        ticks.append(shown(tmp_path).tick)
        if len(set(ticks)) > 3 and shown(tmp_path).changes == 8:
            break
    heart.stop()
    now = shown(tmp_path)
    assert (now.rank, now.launch, now.phase, now.step, now.begun) == (3, "id", "step", 12, 1)
    assert (now.activity, now.changes) == ("reduce", 8)
    assert ticks == sorted(ticks) and len(set(ticks)) > 1
    assert now.where() == "step 12 (gradients between ranks)"
    assert not heart._thread or not heart._thread.is_alive()


def test_the_longest_of_each_phase_is_told_and_the_first_of_its_kind_counts_for_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 10.0, 70.0, 75.0, 76.0, 80.0, 83.0, 84.0])
    monkeypatch.setattr("vdsgen.model.heartbeat.time.monotonic", lambda: next(clock))
    heart = Heart()  # at 0
    heart.begin("step", 1)  # 10: starting took 10
    assert heart.beat().longest_seconds == {"starting": 10}
    heart.begin("between")  # 70: the first step took 60
    assert heart.beat().longest_seconds["step"] == 60
    heart.begin("step", 2)  # 75
    heart.begin("between")  # 76: the second 1
    assert heart.beat().longest_seconds == {"starting": 10, "step": 1, "between": 5}
    heart.begin("step", 3)  # 80
    heart.begin("between")  # 83
    heart.begin("step", 4)  # 84
    assert heart.beat().longest_seconds == {"starting": 10, "step": 3, "between": 4}


def test_the_end_is_shown_at_once(tmp_path: Path) -> None:
    heart = started(tmp_path)
    heart.begin("step", 5)
    heart.end()
    assert (shown(tmp_path).phase, shown(tmp_path).step) == ("done", 5)
    heart.stop()


def test_a_shorter_line_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    heart = started(tmp_path)
    heart.begin("a phase with a long name " * 5)
    heart._write()
    heart.begin("short")
    heart._longest.clear()
    heart._write()
    assert beat_file(tmp_path, 3).read_text().count("\n") == 1
    assert shown(tmp_path).phase == "short"
    heart.stop()


def test_a_run_whose_beats_cannot_be_written_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    heart = started(tmp_path / "file")
    heart.begin("step", 1)
    heart.end()
    heart.stop()


def test_beats_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    assert read_beat(path) is None
    path.write_text(beat(2).text())
    assert read_beat(path) == beat(2)


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=60), st.integers(0, 250).map(lambda cut: beat(1).text().encode()[:cut])))
def test_what_is_no_beat_is_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "no-beat"
    path.write_bytes(content)
    assert read_beat(path) in (None, beat(1))


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": -1},
        {"pid": "1"},
        {"host": "a\x1b[2J"},
        {"phase": "x" * 300},
        {"longest_seconds": {"step": "1"}},
    ],
    ids=str,
)
def test_values_that_no_rank_writes_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "beat"
    path.write_text(json.dumps(json.loads(beat(1).text()) | changes))
    assert read_beat(path) is None
