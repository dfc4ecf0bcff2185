from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from vdsgen.launch.progress import Display, Progress, bar, duration
from vdsgen.spec.run import MESSAGE, STEP


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (185, "3m 05s"), (7620, "2h 07m"), (273600, "3d 04h")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("width", [0, 10, 40, 80, 300])
def test_a_bar_never_wraps(width: int) -> None:
    assert len(bar(Progress(5, 10, 0.5, 3700), width)) <= max(0, width - 1)


def test_a_bar_shows_how_much_is_done() -> None:
    text = bar(Progress(5, 10, 0.25, 65), 200)
    assert text == "[" + "#" * 20 + "." * 20 + "] 5/10  loss 0.2500  1m 05s left"


def test_a_log_gets_plain_lines_and_no_chatter(tmp_path: Path) -> None:
    stream = io.StringIO()
    display = Display(stream, tmp_path / "metrics.jsonl", 10)
    display.rank_line(0, f"{MESSAGE}12 clips")
    display.rank_line(0, "[INFO] something of a library")
    display.rank_line(0, f"{STEP}step 1/10  loss 0.5")
    display.rank_line(3, f"{MESSAGE}warning: a clip is broken")
    display.refresh()
    display.close()
    assert stream.getvalue() == "12 clips\nstep 1/10  loss 0.5\nrank 3: warning: a clip is broken\n"


def test_a_terminal_gets_a_bar_instead_of_step_lines(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 1, "loss": 9.0, "step_seconds": 99.0}) + "\n")
    stream = Terminal()
    display = Display(stream, metrics, 10)
    with metrics.open("a") as file:
        file.write(json.dumps({"step": 2, "loss": 0.5, "step_seconds": 2.0}) + '\n{"half')
    display.rank_line(0, f"{STEP}step 2/10")
    display.refresh()
    assert "2/10  loss 0.5000  16s left" in stream.getvalue()
    assert "step 2/10" not in stream.getvalue()
    display.say("saved")
    assert "\r\x1b[Ksaved\n\r[" in stream.getvalue()


def test_a_bar_is_drawn_when_it_moves_and_ends_with_the_run(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    stream = Terminal()
    display = Display(stream, metrics, 2)
    metrics.write_text(json.dumps({"step": 1, "loss": 0.5, "step_seconds": 2.0}) + "\n")
    for _ in range(5):
        display.refresh()
    assert stream.getvalue().count("1/2") == 1
    with metrics.open("a") as file:
        file.write(json.dumps({"step": 2, "loss": 0.4, "step_seconds": 2.0}) + "\n")
    display.refresh()
    display.say("summary")
    assert stream.getvalue().endswith("\r\x1b[Ksummary\n")


def test_a_loss_that_is_no_number_does_not_stop_the_bar(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    stream = Terminal()
    display = Display(stream, metrics, 10)
    metrics.write_text(json.dumps({"step": 4, "loss": None, "step_seconds": 2.0}) + "\n")
    display.refresh()
    assert "4/10  loss none  12s left" in stream.getvalue()
