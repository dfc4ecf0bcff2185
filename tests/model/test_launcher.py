from __future__ import annotations

import os
import subprocess
import sys

from vdsgen.spec.run import LAUNCHER_PROCESS

RANK = (
    "import os, time; from vdsgen.model.launcher import end_with_launcher;"
    "end_with_launcher(os.environ); print(1, flush=True)"
)


def start_rank(launcher: int | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **({LAUNCHER_PROCESS: str(launcher)} if launcher else {})}
    code = f"{RANK}; time.sleep(60 if {launcher is not None} else 0)"
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)


def test_a_rank_ends_when_its_launcher_is_killed() -> None:
    launcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    rank = start_rank(launcher.pid)
    assert rank.stdout is not None
    assert rank.stdout.readline() == b"1\n"
    assert rank.poll() is None
    launcher.kill()
    assert rank.wait(timeout=10) == 1
    launcher.wait()
    late = start_rank(launcher.pid)
    assert late.communicate(timeout=30)[0] == b"", "its launcher was gone before it started"
    assert late.returncode == 1
    rank.stdout.close()


def test_a_rank_without_launcher_lives_on() -> None:
    rank = start_rank(None)
    assert rank.communicate(timeout=30)[0] == b"1\n"
    assert rank.returncode == 0
