"""What ends a run early, and that a signal sent twice in a moment is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vdsgen.model import stopping
from vdsgen.model.stopping import Termination, Wish, wish_of
from vdsgen.spec.run import STOP_REQUEST


def test_a_request_is_taken_once_by_the_first_rank(tmp_path: Path) -> None:
    (tmp_path / STOP_REQUEST).touch()
    assert wish_of(tmp_path, first_rank=False) is Wish.GO_ON
    assert wish_of(tmp_path, first_rank=True) is Wish.STOP
    assert wish_of(tmp_path, first_rank=True) is Wish.GO_ON


def test_a_signal_counts_more_than_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    termination = Termination()
    monkeypatch.setattr(stopping, "TERMINATION", termination)
    before = signal.getsignal(signal.SIGTERM)
    try:
        termination.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert wish_of(tmp_path, first_rank=True) is Wish.STOP_FOR_NOW
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_later_signal_ends_the_process_at_once() -> None:
    code = (
        "import time; from vdsgen.model import stopping; stopping.SAME_SECONDS = 0.5;"
        "stopping.TERMINATION.listen(); print('up', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
