"""When a run is started again, from where, and when no more."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.test_hang import beat
from tests.launch.test_start import complete_checkpoint
from vdsgen.errors import VdsgenError
from vdsgen.launch.hang import Hang, Suspect
from vdsgen.launch.progress import Display
from vdsgen.launch.restarts import (
    Again,
    Failure,
    GiveUp,
    decide,
    failure_of,
    in_vain,
    policy_text,
    run_again_and_again,
)
from vdsgen.launch.run import Outcome
from vdsgen.launch.start import Request, survival_of
from vdsgen.launch.watch import Death
from vdsgen.spec.launching import Restarts

KILLED = Death(1, 4711, signal.SIGKILL)
POLICY = Restarts(limit=10, delay_seconds=0.0)
DONE = Outcome(0, None, True, None)


def failure(step: int, code: int = 137, rank: int | None = 1) -> Failure:
    return Failure(code, rank, step, "it was killed")


@pytest.mark.parametrize(("code", "why"), [(2, "bad input"), (4, "a diverged loss")])
def test_what_would_end_every_start_is_not_tried_again(code: int, why: str) -> None:
    decision = decide(POLICY, [failure(5, code)])
    assert decision == GiveUp(f"{why} (exit code {code}) would end every start")


def test_restarts_are_counted() -> None:
    policy = Restarts(limit=2)
    assert isinstance(decide(policy, [failure(1), failure(2)]), Again)
    assert decide(policy, [failure(1), failure(2), failure(3)]) == GiveUp(
        "the 2 restarts that were allowed are used up"
    )


def test_the_same_failure_at_the_same_step_ends_it() -> None:
    assert isinstance(decide(POLICY, [failure(7)] * 2), Again)
    assert decide(POLICY, [failure(7)] * 3) == GiveUp(
        "3 starts in a row ended at step 7 in the same way: it was killed"
    )
    as_it_starts = replace(failure(7), trained=False)
    for other in (failure(7, 139), failure(7, rank=0), failure(8), as_it_starts):
        assert isinstance(decide(POLICY, [failure(7), other, failure(7)]), Again)


def test_a_host_that_is_away_is_waited_for() -> None:
    away = failure_of(Outcome(1, None, False, None, lost_host="bee"), 7)
    assert away.what == "no connection to bee"
    assert isinstance(decide(POLICY, [away] * 9), Again)
    hung = Failure(5, None, 7, "all ranks wait for each other")
    assert isinstance(decide(POLICY, [hung] * 3), GiveUp)


def test_delays_double_until_a_start_trains() -> None:
    policy = Restarts(limit=100, delay_seconds=2.0, longest_delay_seconds=10.0)
    trained = [True, False, False, False, True, False, True]
    failures = [Failure(137, number, 7, "killed", made) for number, made in enumerate(trained)]
    delays = [decide(policy, failures[: number + 1]) for number in range(len(trained))]
    assert delays == [Again(seconds) for seconds in (2, 4, 8, 10, 2, 4, 2)]


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 1000))
def test_delays_stay_within_their_bounds(trained: list[bool], more: int) -> None:
    failures = [Failure(137, 0, 3, "killed", made) for made in trained]
    assert 0 <= in_vain(failures) <= len(failures)
    assert 0 <= Restarts(limit=1).delay_after(in_vain(failures) + more) <= 300


class Attempts:
    """Outcomes in their order, each after it has made its steps and checkpoints."""

    def __init__(self, run: Path, *outcomes: tuple[Outcome, int, int | None]) -> None:
        self.run, self.outcomes, self.resumed = run, list(outcomes), list[bool]()

    def __call__(self, resume: bool) -> Outcome:
        self.resumed.append(resume)
        outcome, step, saved = self.outcomes.pop(0)
        self.run.mkdir(exist_ok=True)
        if step:
            (self.run / "metrics.jsonl").write_text(json.dumps({"step": step}) + '\n{"step": 99')
        if saved is not None:
            complete_checkpoint(self.run, saved)
        return outcome


def run_all(attempts: Attempts, policy: Restarts = POLICY) -> tuple[int, list[str]]:
    stream = io.StringIO()
    display = Display(stream, attempts.run / "metrics.jsonl", 10)
    code = run_again_and_again(attempts, attempts.run, policy, display, resume=False)
    return code, stream.getvalue().splitlines()


def killed(death: Death = KILLED) -> Outcome:
    return Outcome(1, death, False, None)


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    attempts = Attempts(
        tmp_path / "run",
        (killed(), 3, None),
        (killed(Death(0, 5, signal.SIGTERM)), 47, 40),
        (killed(), 50, 50),
        (DONE, 60, None),
    )
    code, shown = run_all(attempts)
    assert code == 0
    assert attempts.resumed == [False, False, True, True]
    assert shown == [
        "Restart 1 of 10: from the beginning, there is no checkpoint yet (3 steps are lost); what was there "
        "is now metrics.jsonl.before-restart-1.",
        "Restart 2 of 10: from the checkpoint of step 40; 7 steps after it are made again.",
        "Restart 3 of 10: from the checkpoint of step 50.",
    ]
    starts = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert [(start["reached_step"], start["end"]) for start in starts] == [
        (3, "rank 1 (process 4711) was killed by SIGKILL"),
        (47, "rank 0 (process 5) was killed by SIGTERM"),
        (50, "rank 1 (process 4711) was killed by SIGKILL"),
    ]
    assert json.loads((tmp_path / "run" / "metrics.jsonl.before-restart-1").read_text().split("\n")[0]) == {
        "step": 3
    }


def test_it_is_said_why_a_run_is_not_started_again(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "run", *[(killed(), 5, 5)] * 1, *[(killed(), 5, None)] * 2)
    code, shown = run_all(attempts)
    assert code == 137
    assert shown[-1] == (
        "Not restarted: 3 starts in a row ended at step 5 in the same way: "
        "rank 1 (process 4711) was killed by SIGKILL."
    )


def test_a_hang_is_a_failure_like_others(tmp_path: Path) -> None:
    hang = Hang(61.0, 60.0, (Suspect(beat(1), "stopped"),), (beat(0),))
    attempts = Attempts(tmp_path / "run", (Outcome(None, None, False, None, hang), 8, 5), (DONE, 9, None))
    assert run_all(attempts)[0] == 0
    assert attempts.resumed == [False, True]
    start = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]
    assert start["end"] == "hang: no rank came on for 61 s; rank 1 (process 101 on bee) is stopped"
    assert Outcome(None, None, False, None, hang).exit_code == 5


@pytest.mark.parametrize("limit", [0, 5])
def test_a_run_that_was_told_to_stop_stays_stopped(tmp_path: Path, limit: int) -> None:
    stopped = Outcome(1, KILLED, False, signal.SIGTERM)
    code, shown = run_all(Attempts(tmp_path / "run", (stopped, 4, 2)), Restarts(limit=limit))
    assert (code, shown) == (143, [])


def test_without_restarts_a_failure_is_the_end_and_nothing_more_is_said(tmp_path: Path) -> None:
    assert run_all(Attempts(tmp_path / "run", (killed(), 4, 2)), Restarts(limit=0)) == (137, [])


def test_a_signal_ends_the_wait_for_a_restart(tmp_path: Path) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    code, shown = run_all(Attempts(tmp_path / "run", (killed(), 4, 2)), Restarts(limit=1, delay_seconds=60.0))
    assert code == 143
    assert shown[0].startswith("Restart 1 of 1 in 2m 00s: from the checkpoint of step 2")
    assert shown[1] == "Stopped by SIGTERM; no process is left."


def asked(tmp_path: Path, **changes: Any) -> Request:
    return Request(tmp_path, tmp_path / "run", **changes)


def test_the_command_line_stands_above_the_pool(tmp_path: Path) -> None:
    from tests.render.plans import pool_of

    pool = pool_of(1, 2, restarts=Restarts(limit=3, delay_seconds=7.0), hang_seconds=90.0)
    assert survival_of(asked(tmp_path), pool, "deepspeed") == (pool.restarts, 90.0)
    policy, hang_seconds = survival_of(asked(tmp_path, restarts=9, hang_seconds=0.0), pool, "torchrun")
    assert (policy.limit, policy.delay_seconds, hang_seconds) == (9, 7.0, 0.0)
    assert survival_of(asked(tmp_path), pool_of(1, 2), "ssh") == (Restarts(limit=0), None)
    assert survival_of(asked(tmp_path, measure=True), pool, "deepspeed")[0].limit == 0


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    from tests.render.plans import pool_of

    with pytest.raises(
        VdsgenError, match="--restarts and --hang-seconds: nobody here stays with a job that slurm"
    ):
        survival_of(asked(tmp_path, restarts=1, hang_seconds=1.0), pool_of(1, 2), "slurm")
    with pytest.raises(VdsgenError, match="--measure saves no checkpoint"):
        survival_of(asked(tmp_path, restarts=1, measure=True), pool_of(1, 2), "deepspeed")
    with pytest.raises(ValueError, match="restarts stands beside `launcher: slurm`"):
        pool_of(1, 2, launcher="slurm", restarts=Restarts(limit=1))
    assert not {"restarts", "hang_seconds"} & set(pool_of(1, 2).model_dump())


def test_the_policy_is_told_in_words() -> None:
    assert policy_text(Restarts(limit=0), 0) == "restarts: none; hangs are not looked for"
    text = policy_text(Restarts(limit=5), None)
    assert text.startswith("restarts: 5 at most, from the last checkpoint, 1 s after a failure, ")
    assert text.endswith("a hang is a step without a sign of life for ten times the longest, at least 60 s")
    assert policy_text(Restarts(limit=5), 90).endswith("for 90 s")
