from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.ablate.results import failed, ran
from vdsgen.ablate.progress import Progress, RunDisplay, counting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def last_line(stream: io.StringIO) -> str:
    return stream.getvalue().rpartition("\r")[2].removeprefix("\x1b[K")


def test_a_terminal_shows_where_things_stand_and_the_time_left(tmp_path: Path) -> None:
    stream = Terminal()
    earlier = [ran("a", 1, 2.0, wall_seconds=30.0)]
    progress = Progress(stream, 4, earlier)
    progress.begins("b", 1, 2)
    assert last_line(stream) == "run 2 of 4: b, round 1 of 2, starting, about 1m 30s left"
    display = RunDisplay(progress, tmp_path, 7)
    display.refresh()
    assert "starting" in last_line(stream)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n" + json.dumps({"step": 2}) + "\n")
    display.refresh()
    assert last_line(stream) == "run 2 of 4: b, round 1 of 2, step 2 of 7, about 1m 30s left"
    progress.ended(ran("b", 1, 2.0, 3.0, wall_seconds=50.0))
    assert stream.getvalue().endswith("\r\x1b[K[2/4] b, round 1: 2.5 s a step, 90 MiB\n")
    progress.begins("b", 2, 2)
    assert last_line(stream).endswith("about 1m 20s left")
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_planning_is_counted_on_a_terminal() -> None:
    stream, plain = Terminal(), io.StringIO()
    assert list(counting("ab", "planning", stream)) == list(counting("ab", "planning", plain)) == ["a", "b"]
    assert stream.getvalue() == "\r\x1b[Kplanning 1 of 2\r\x1b[Kplanning 2 of 2\r\x1b[K"
    assert plain.getvalue() == ""


def test_a_narrow_terminal_cuts_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Progress(stream, 4, []).begins("a-plan-of-a-long-name", 1, 2)
    assert last_line(stream) == "run 1 of 4: a-plan-"


def test_elsewhere_there_is_a_line_a_run() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 4, [])
    progress.begins("a", 1, 2)
    progress.at_step("step 1 of 2")
    assert stream.getvalue() == ""
    progress.ended(failed("a", 1, "out_of_memory", "error: rank 1 was killed\nmore"), skipped=1)
    assert stream.getvalue() == "[1/3] a, round 1: out of memory: error: rank 1 was killed\n"


def test_what_ranks_say_is_kept_and_their_noise_is_not(tmp_path: Path) -> None:
    display = RunDisplay(Progress(io.StringIO(), 1, []), tmp_path, 7)
    display.rank_line(1, "[vdsgen] warning: a broken clip")
    display.rank_line(0, "[vdsgen step] step 1/7")
    display.rank_line(0, "chatter of a library")
    display.say("error: rank 0 died")
    assert display.messages == ["rank 1: warning: a broken clip", "error: rank 0 died"]
    assert (tmp_path / "launch.log").read_text().splitlines() == display.messages
