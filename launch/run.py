"""Runs training commands to their end: shows progress, ends everything with it, and says who died of what."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from vdsgen.files import write_atomically
from vdsgen.launch.commands import Command, Job
from vdsgen.launch.hang import Hang
from vdsgen.launch.hang_guard import HangGuard
from vdsgen.launch.hold import RankState, parse_death, parse_state
from vdsgen.launch.logs import RankLogs
from vdsgen.launch.progress import Shows
from vdsgen.launch.tie import LaunchersEnd
from vdsgen.launch.watch import Death, RankWatch, kill_all
from vdsgen.runs.tail import Tail, last_lines
from vdsgen.spec.run import LAUNCHER_PROCESS, MESSAGE, STEP, STOP_REQUEST

LOOK_SECONDS = 0.2
"""Between two looks at logs and metrics; a rank's death is noticed at once."""
GRACE_SECONDS = 5.0
"""For the launcher to end the other ranks (it asks once a second), before everything is killed."""
HOLD_SECONDS = 15.0
"""The same for other hosts, whose launchers need that time themselves, and for what they say to arrive."""
SSH_FAILED = 255
"""ssh's own exit code: it has not come to the command, or has lost the host (ssh(1), EXIT STATUS)."""
PATIENCE_SECONDS = 600.0
"""For the step that runs and a checkpoint, before a run that was asked to stop is ended."""
SHOWN_LINES = 15
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HUNG = 5
"""Exit code of a run that did not come on any more."""
LEFT_SECONDS = 30.0
"""For a launcher whose ranks have all ended."""
EXPLAINED = (2, 4)
"""Exit codes whose message the trainer has printed itself: bad input, a diverged loss."""


@dataclass(slots=True)
class Stop:
    """Set by a signal to this process."""

    signal: int | None = None
    count: int = 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self.count += 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    returncode: int | None
    """The runner's; None where it had to be killed."""
    first_failure: Death | None
    ranks_ended: bool
    """Every rank of this machine was seen to end before the runner did."""
    stopped_by: int | None
    """The signal that told this process to stop."""
    hang: Hang | None = None
    """What it was ended for."""
    lost_host: str | None = None
    """The connection to it was lost, and no rank had failed."""

    @property
    def exit_code(self) -> int:
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        if self.hang is not None:
            return HUNG
        if self.first_failure is not None and self.first_failure.exit_code is not None:
            return self.first_failure.exit_code
        if self.returncode is None:
            return 1
        if self.returncode == 0:
            # The runner reports success when its launcher was killed (runner.py:639).
            return 0 if self.ranks_ended else 1
        return _normalised(self.returncode)

    @property
    def explained(self) -> bool:
        """The trainer has said why it ended."""
        return self.hang is not None or (self.first_failure is not None and self.exit_code in EXPLAINED)


class Processes:
    """What was started for a launch, until none of it runs any more."""

    def __init__(self, commands: Sequence[Command], log: Path) -> None:
        """Their output goes to the end of `log`."""
        self._reports = Tail(log, last_bytes=0)
        self._first_code: int | None = None
        """Of the command that was first to end badly."""
        self.deaths: list[Death] = []
        """Failures of ranks on other hosts, in the order they were told."""
        self.lost_host: str | None = None
        """The first that the connection to was lost, or that was never reached."""
        self._ends: dict[int, LaunchersEnd] = {}
        """By process: of those that are tied."""
        self.states: dict[int, RankState] = {}
        """Of ranks on other hosts, as last told."""
        self._running: list[tuple[Command, subprocess.Popen[bytes]]] = []
        try:
            with log.open("ab") as output:
                for command in commands:
                    process = subprocess.Popen(  # noqa: S603 - an argument list, made by a backend
                        command.argv,
                        env={**_environment(command), LAUNCHER_PROCESS: str(os.getpid())},
                        stdin=subprocess.PIPE if command.tied else subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                    self._running.append((command, process))
                    if process.stdin is not None:
                        self._ends[process.pid] = LaunchersEnd(process.stdin)
        except BaseException:
            self.kill()
            raise
        self.tied = any(command.tied for command in commands)
        """Some run on other hosts."""
        self.grace_seconds = HOLD_SECONDS if self.tied else GRACE_SECONDS

    def look(self) -> None:
        """Learn what has ended, and of what; let hosts know that somebody is here."""
        for command, process in list(self._running):
            code = process.poll()
            if code is None:
                if process.pid in self._ends:
                    self._ends[process.pid].beat()
                continue
            self._running.remove((command, process))
            if process.stdin is not None:
                process.stdin.close()
            if code == SSH_FAILED and command.tied:
                code = 1
                self.lost_host = self.lost_host or command.host
            if code != 0 and self._first_code is None:
                self._first_code = code
        lines = self._reports.lines()
        self.deaths += filter(None, map(parse_death, lines))
        self.states |= dict(filter(None, map(parse_state, lines)))

    def ask(self, question: str) -> None:
        """Those on other hosts: what they answer is there after a later look."""
        for end in self._ends.values():
            end.say(question)

    def suspend(self, _number: int, _frame: FrameType | None) -> None:
        """Control-Z: hosts that hear nothing from now on are told to go on."""
        for end in self._ends.values():
            end.go_away()
        os.kill(os.getpid(), signal.SIGSTOP)

    @property
    def failed(self) -> bool:
        """A command has ended badly, or a rank on another host."""
        return self._first_code is not None or bool(self.deaths)

    @property
    def ended(self) -> bool:
        return not self._running

    @property
    def returncode(self) -> int | None:
        """None while one runs that nothing is known against."""
        return self._first_code if self._first_code is not None or self._running else 0

    def end(self, *, all_of_them: bool) -> None:
        """Ask those that are tied to end, or all."""
        for command, process in self._running:
            if process.stdin is not None:
                process.stdin.close()
            elif all_of_them and not command.tied:
                # To the whole session: DeepSpeed's runner has no handler on one node, and would leave the
                # ranks behind.
                os.killpg(process.pid, signal.SIGTERM)

    def kill(self) -> None:
        for _, process in self._running:
            if process.stdin is not None:
                process.stdin.close()
            process.kill()
            process.wait()


def run(
    commands: Sequence[Command],
    job: Job,
    launch_id: str,
    display: Shows,
    guard: HangGuard | None = None,
) -> Outcome:
    """Start `commands` and stay until none of their processes is left.

    Messages go to `display`; what each rank prints to RUN/logs, the launchers' own output to
    RUN/logs/launcher.log. A signal to stop lets a run that trains finish its step and save; a second one ends
    it at once. The outcome's exit code is that of the rank that failed first (128 + N for signal N), else the
    launcher's; 128 + N when this process was told to stop by signal N; HUNG for a run that `guard` finds to
    hang.
    """
    folder = job.output / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    logs = RankLogs(folder)
    watch = RankWatch(launch_id, sum(command.local_ranks for command in commands))
    stop = Stop()
    # Ignored ones stay ignored: that is what nohup does.
    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in heard}
    launcher_log = folder / "launcher.log"
    try:
        processes = Processes(commands, launcher_log)
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, processes.suspend)
        try:
            hang = _follow(processes, watch, logs, display, stop, Request(job), guard)
            watch.wait(0)
            processes.look()
            first = watch.first_failure or next(iter(processes.deaths), None)
            lost = processes.lost_host if first is None else None
            outcome = Outcome(processes.returncode, first, watch.all_ended, stop.signal, hang, lost)
        finally:
            kill_all(launch_id)
            processes.kill()
            _show_new(logs, display)
            display.close()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        watch.close()
    if outcome.stopped_by is not None:
        display.say(f"Stopped by {signal.Signals(outcome.stopped_by).name}; no process is left.")
    elif outcome.exit_code and not outcome.explained:
        _explain(outcome, logs, launcher_log, display)
    return outcome


def _follow(
    processes: Processes,
    watch: RankWatch,
    logs: RankLogs,
    display: Shows,
    stop: Stop,
    request: Request,
    guard: HangGuard | None,
) -> Hang | None:
    """Until the launchers end; past a failure, a signal to stop at once, or a hang, which is returned, for
    their grace at most."""
    deadline: float | None = None
    hang: Hang | None = None
    left_at: float | None = None
    while not processes.ended and (deadline is None or time.monotonic() < deadline):
        watch.wait(LOOK_SECONDS)
        processes.look()
        _show_new(logs, display)
        if deadline is not None:
            continue
        failed = watch.first_failure is not None or processes.failed
        if guard is not None and not failed and not (watch.deaths and watch.all_ended):
            hang = guard.look(watch.alive, processes)
        if guard is not None and hang is not None:
            _say_hang(hang, logs, display)
            guard.write_stacks(watch.alive, processes)
            _show_new(logs, display)
            processes.end(all_of_them=True)
            # A stopped rank hears nothing but SIGKILL, and DeepSpeed's launcher would wait 30 s for each;
            # ranks on other hosts are not to be reached in another way.
            deadline = time.monotonic() + (0.0 if watch.alive else processes.grace_seconds)
            continue
        # Of a job on other hosts none is here: then nothing has ended.
        if watch.deaths and watch.all_ended:
            left_at = left_at or time.monotonic()
            failed = failed or time.monotonic() - left_at > LEFT_SECONDS
        stopped = stop.signal is not None and not request.is_left_alone(stop, display)
        if stopped:
            assert stop.signal is not None
            display.say(f"Stopping ({signal.Signals(stop.signal).name}).")
        if failed or stopped:
            deadline = time.monotonic() + processes.grace_seconds
            processes.end(all_of_them=stopped)
    return hang


@dataclass(slots=True)
class Request:
    """Asking a run to end by itself, once it trains: before its first step there is nothing to save."""

    job: Job
    asked_at: float | None = None
    _size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self._size_bytes = self._metrics_bytes()

    def is_left_alone(self, stop: Stop, display: Shows) -> bool:
        """Asks it the first time. False: the run is to be ended."""
        if self.asked_at is None:
            if self.job.measure or self._metrics_bytes() == self._size_bytes:
                return False
            try:
                write_atomically(self.job.output / STOP_REQUEST, b"")
            except OSError:
                return False
            self.asked_at = time.monotonic()
            assert stop.signal is not None
            display.say(
                f"Stopping after this step, with a checkpoint ({signal.Signals(stop.signal).name}); "
                "a second signal ends it at once."
            )
        return stop.count < 2 and time.monotonic() - self.asked_at < PATIENCE_SECONDS

    def _metrics_bytes(self) -> int:
        metrics = self.job.output / "metrics.jsonl"
        return metrics.stat().st_size if metrics.exists() else 0


def _show_new(logs: RankLogs, display: Shows) -> None:
    for rank, line in logs.new_lines():
        display.rank_line(rank, line)
    display.refresh()


def _environment(command: Command) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in command.environment}
    return environment | {key: value for key, value in command.environment.items() if value is not None}


def _explain(outcome: Outcome, logs: RankLogs, launcher_log: Path, display: Shows) -> None:
    """Which rank died first, of what, and the last lines of its log; else the runner's log."""
    first = outcome.first_failure
    if first is not None:
        display.say(f"error: {first}; the job was ended.")
    else:
        display.say(f"error: {_without_rank(outcome)}")
    if outcome.exit_code == 128 + signal.SIGKILL:
        display.say("  -> where nobody killed it, the kernel may have, for want of memory: see `dmesg`")
    path = logs.path(first.rank) if first is not None else None
    for shown in [path] if path is not None else [launcher_log, *map(logs.path, logs.ranks()[:1])]:
        if shown is not None and (lines := last_lines(shown, SHOWN_LINES)):
            display.say(f"The last lines of {shown}:")
            text = (f"    {line.removeprefix(MESSAGE).removeprefix(STEP)}" for line in lines)
            display.say("\n".join(text))


def _say_hang(hang: Hang, logs: RankLogs, display: Shows) -> None:
    first, *more = hang.lines()
    display.say("\n".join([f"error: the run hangs: {first}", *more]))
    ranks = [suspect.beat.rank for suspect in hang.suspects] or [beat.rank for beat in hang.others[:1]]
    path = next(filter(None, map(logs.path, ranks)), None)
    if path is not None:
        display.say(
            f"  The Python stacks of all ranks that can write them are in their logs, in {path.parent}"
        )


def _without_rank(outcome: Outcome) -> str:
    """What is known where no rank was seen to fail."""
    if outcome.returncode == 0:
        return "the launcher was ended before its ranks; they were ended as well."
    if outcome.lost_host is not None:
        return f"no connection to {outcome.lost_host}, or none any more; the job was ended."
    if outcome.exit_code > 128:
        name = signal.Signals(outcome.exit_code - 128).name
        return f"what had started the ranks was ended by {name}; no rank was seen to fail before."
    return f"the run ended with code {outcome.exit_code}, and no rank was seen to fail."


def _normalised(returncode: int) -> int:
    """DeepSpeed's launcher passes a rank's signal N on as 256 - N (sys.exit(-N), launcher/launch.py:260)."""
    if returncode < 0:
        return 128 - returncode
    return 128 + 256 - returncode if returncode > 256 - 65 else returncode
