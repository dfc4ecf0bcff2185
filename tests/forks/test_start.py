"""Forks of the process that has imported what ranks need behave as `python -m` does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.forks.start import ENVIRONMENT, ROOT, Fork, start

MODULE = "tests.forks.child"


def child(tmp_path: Path, *arguments: str, stdin: str = "", name: str = "out") -> tuple[Fork, Path]:
    output = tmp_path / name
    given: dict[str, Any] = {"environment": {"RANK": name}, "imports": ["graphlib"], "stdin": stdin}
    with output.open("w") as stream:
        return start(MODULE, *arguments, **given, stdout=stream), output


def test_a_fork_is_the_module_with_its_arguments_input_and_variables(tmp_path: Path) -> None:
    fork, output = child(tmp_path, "show", "two words", stdin="given\n")
    assert fork.wait(60) == 0 == fork.wait()
    said = json.loads(output.read_text())
    assert said["arguments"] == ["show", "two words"]
    assert said["input"] == "given\n"
    assert said["environment"].items() >= {"RANK": "out", **ENVIRONMENT}.items()
    assert said["folder"] == str(ROOT)
    assert said["pid"] == fork.pid != os.getpid()
    assert said["threads"] == 1
    assert said["descriptors"] == [0, 1, 2], "of no other fork, and none of the server's"
    assert said["imported"] == ["torch", "deepspeed", "graphlib"]


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [("exit 3", 3, ""), ("say", 1, "a reason"), ("raise", 1, "ValueError: a reason"), ("kill", -9, "")],
)
def test_exit_codes_and_reasons_are_pythons(tmp_path: Path, ending: str, code: int, said: str) -> None:
    fork, output = child(tmp_path, *ending.split())
    assert fork.wait(60) == code
    assert said in output.read_text()


def test_a_fork_that_hangs_is_told_and_ended(tmp_path: Path) -> None:
    fork, _ = child(tmp_path, "sleep")
    with pytest.raises(subprocess.TimeoutExpired, match=MODULE):
        fork.wait(0.05)
    fork.kill()
    assert fork.wait(60) == -signal.SIGKILL
    fork.kill()  # of a process that has ended: nothing


def test_threads_may_start_forks_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda name: child(tmp_path, "show", name=name), "abcdefgh"))
    assert [fork.wait(60) for fork, _ in started] == [0] * 8
    assert [json.loads(output.read_text())["environment"]["RANK"] for _, output in started] == [*"abcdefgh"]


def test_what_was_read_while_importing_cannot_be_another(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream, pytest.raises(AssertionError, match="OMP_NUM_THREADS"):
        start(MODULE, environment={"OMP_NUM_THREADS": "2"}, stdout=stream)
