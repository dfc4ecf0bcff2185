"""Runs a case and says what of the promises it broke."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from click.testing import CliRunner

from tests.campaigns.fuzzing import scripts
from tests.campaigns.fuzzing.case import Argv, Case
from tests.campaigns.fuzzing.readers import call
from tests.campaigns.fuzzing.sandbox import Sandbox
from vdsgen.cli.main import cli

EXIT_CODES = {
    "plan": {0, 2, 3}, "generate": {0, 2, 3}, "catalog": {0, 2}, "lint": {0, 1, 2}, "check": {0, 1, 2, 3},
    "diff": {0, 1, 2}, "launch": {0, 2}, "export": {0, 2}, "cache": {0, 1, 2},
}  # fmt: skip
"""docs and CONTRACTS: what each command may end with."""
LIMIT_SECONDS = 5.0
"""Of processor time for a command, reading and refusing its input."""
PLANNING_LIMIT_SECONDS = 10.0
"""Where commands that plan are cut off, and counted: a search for hundreds of GPUs takes as long as it takes, and so
does tracing a model that nobody has traced."""
AGAIN_SECONDS = 0.1
"""Between interruptions of a command whose time is up."""
IDLE_SECONDS, BUSY_SECONDS = 30.0, 0.02
"""Who has not computed for BUSY_SECONDS in so many seconds waits for something."""
PLANNING = ("plan", "generate", "check")
MOST_SAID = 20_000
"""Characters on standard error."""
MEMORY_BYTES = 12 * 2**30
"""Of addresses; torch and its libraries take four."""


class TooLongError(BaseException):
    """No command may catch this. The argument: whether it computed, and did not wait."""


@dataclass
class Outcome:
    """Of one case."""

    problems: list[str] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    """Of processor time, of the slowest command."""
    cut_off: int = 0
    """Commands that were planning when their time was up."""
    scripts: int = 0
    """Rendered scripts and printed commands that a shell was given."""


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 2**20, resource.RLIM_INFINITY))


def check(case: Case, sandbox: Sandbox, stand_ins: Path) -> Outcome:
    outcome = Outcome()
    for argv in case.commands:
        _check_command(case, argv, sandbox, stand_ins, outcome)
    return outcome


def _may_change(argv: Argv) -> tuple[str, ...]:
    if argv[0] in ("generate", "export"):
        return ("out",)
    if argv[0] == "lint" and "--fix" in argv:
        return tuple(word for word in argv if word.endswith(".json"))
    # A reader that finds a shard damaged leaves a mark beside it.
    return ("cache/shards",) if argv[0] == "@cache" else ()


def _check_command(case: Case, argv: Argv, sandbox: Sandbox, stand_ins: Path, outcome: Outcome) -> None:
    problems = outcome.problems
    sandbox.begin(case, _may_change(argv))
    before, out_before = sandbox.listing(), sandbox.content("out")
    began = time.process_time()
    try:
        with _limited(PLANNING_LIMIT_SECONDS):
            sandbox.watch(True)
            try:
                code, out, err, error = _run(argv)
            finally:
                sandbox.watch(False)
    except TooLongError as stopped:
        outcome.exit_codes.append(-1)
        if stopped.args == (True,) and argv[0] in PLANNING:
            outcome.cut_off += 1
        else:
            problems.append(
                f"{argv[0]}: still {'running' if stopped.args == (True,) else 'waiting'} when its time was up"
            )
        return
    seconds = time.process_time() - began
    outcome.seconds = max(outcome.seconds, seconds)
    outcome.exit_codes.append(code)
    if error is not None:
        problems.append(
            f"{argv[0]}: {type(error).__name__} reached the top: {_where(error)}: {str(error)[:200]}"
        )
    elif code not in EXIT_CODES.get(argv[0], {0, 1, 2}):
        problems.append(f"{argv[0]}: exit code {code}")
    plans = argv[0] in PLANNING and (code in (0, 1, 3) or "tracing the layers" in err)
    if seconds > LIMIT_SECONDS and not plans:
        problems.append(f"{argv[0]}: {seconds:.1f} s of a processor, exit code {code}")
    problems += [f"{argv[0]}: {text}" for text in _said(case, argv, code, out, err)] if error is None else []
    os.chdir(sandbox.work)
    problems += [f"{argv[0]}: {event}" for event in sandbox.events[:3]]
    after = sandbox.listing()
    if after != before:
        other = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        problems.append(f"{argv[0]}: changed outside its output: {other[:3]}")
    if code != 0 and argv[0] in ("generate", "export") and sandbox.content("out") != out_before:
        problems.append(f"{argv[0]}: refused, but the output directory has changed")
    problems += scripts.canaries(sandbox.work, sandbox.root, sandbox.root / "home", Path("/tmp"))
    if code == 0 and argv[0] == "generate" and case.checks_output:
        problems += [f"generate: {text}" for text in _rendered_problems(sandbox, stand_ins, outcome)]
    if code == 0 and argv[0] == "launch":
        output = next(word.removeprefix("--output=") for word in argv if word.startswith("--output="))
        found = scripts.dry_run_problems(out, output, stand_ins, sandbox.work)
        outcome.scripts += 1
        problems += [f"launch: {text}" for text in found]


def _run(argv: Argv) -> tuple[int, str, str, BaseException | None]:
    """Exit code, standard output, standard error, and what reached the top."""
    if argv[0].startswith("@"):
        try:
            code, said = call(argv[0], argv[1])
        except Exception as error:
            return 1, "", "", error
        return code, "", said, None
    result = CliRunner().invoke(cli, list(argv), prog_name="vdsgen")
    reached = None if isinstance(result.exception, SystemExit) else result.exception
    return result.exit_code, result.stdout, result.stderr, reached


def _said(case: Case, argv: Argv, code: int, out: str, err: str) -> Iterator[str]:
    if "Traceback (most recent call last)" in err + out:
        yield "a traceback was printed"
    if len(err) > MOST_SAID:
        yield f"{len(err)} characters on standard error"
    if code != 2 or argv[0].startswith("@"):
        return
    if "error: " not in err.lower():
        yield f"exit code 2, and standard error says {err[:80]!r}"
    elif not err.startswith("Usage: ") and not any(name in err for name in case.named):
        yield f"the error names none of {case.named}: {err[:200]!r}"
    odd = [c for c in err if not c.isprintable() and c not in "\n\t"]
    if odd:
        yield f"standard error has the control character {odd[0]!r}"
    if argv[0] in ("plan", "generate") and out:
        yield f"refused, and standard output says {out[:80]!r}"


def _rendered_problems(sandbox: Sandbox, stand_ins: Path, outcome: Outcome) -> Iterator[str]:
    for folder in sorted({path.parent for path in (sandbox.work / "out").rglob("plan.json")}):
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            content = path.read_bytes()
            try:
                if path.suffix == ".json":
                    json.loads(content, parse_constant=_no_json)
                elif path.suffix == ".yaml":
                    yaml.safe_load(content)
                content.decode("utf-8")
            except (ValueError, yaml.YAMLError) as error:
                yield f"{path.name} cannot be read: {error}"
            if path.suffix in (".sh", ".sbatch"):
                outcome.scripts += 1
                odd = "a b $(touch canary)"
                given = (odd,) if path.suffix == ".sh" else (str(folder), odd)
                calls = scripts.run_script(path, given, stand_ins, sandbox.work)
                started = [one for one in calls if Path(one[0]).name in ("deepspeed", "srun")]
                hosts_missing = (
                    path.suffix == ".sh"
                    and not started
                    and b"# HOST slots=" in (folder / "hostfile").read_bytes()
                )
                if len(started) != 1 and not hosts_missing:
                    yield f"{path.name} starts {started!r}"
                elif started and odd not in started[0]:
                    yield f"{path.name} hands on {started[0]!r}"
        yield from scripts.canaries(sandbox.work, folder)


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _where(error: BaseException) -> str:
    """The innermost line of ours."""
    frames = [
        f"{Path(frame.filename).name}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and "/lib/python" not in frame.filename
    ]
    return frames[-1] if frames else "?"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises TooLongError after so many seconds of this process's own time, and where it waits."""
    computed = time.process_time()

    def used_up(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError(True)

    def look(_number: int, _frame: FrameType | None) -> None:
        nonlocal computed
        before, computed = computed, time.process_time()
        if computed - before < BUSY_SECONDS:
            raise TooLongError(False)

    previous = [signal.signal(signal.SIGPROF, used_up), signal.signal(signal.SIGALRM, look)]
    # Again and again: what is raised while Python cleans up after something is dropped there.
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, IDLE_SECONDS, IDLE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), previous, strict=True):
            signal.signal(number, handler)


def signature(problem: str) -> str:
    """The same for problems with one cause."""
    words = problem.split(": ")
    return ": ".join(words[:3])[:160]
