"""Hostile and broken inputs through the real commands, in processes that are watched.

python -m tests.campaigns.fuzz --inputs 10000 [--seed N] [--minutes M] [--from N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.campaigns import figures
from tests.campaigns.fuzzing.case import as_json
from tests.campaigns.fuzzing.check import LIMIT_SECONDS, PLANNING_LIMIT_SECONDS, check, signature
from tests.campaigns.fuzzing.inputs import KINDS, make_case
from tests.campaigns.fuzzing.tracing import REAL_ONE_IN
from tests.campaigns.fuzzing.workers import Answer, run_cases
from vdsgen.cli.main import cli

FAILURES = Path(__file__).parents[2] / "runs" / "fuzz"
"""Cases that broke a promise, as small as they get."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first input")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument(
        "--shrink", action="store_true", help="make what broke a promise small, a minute each"
    )
    parser.add_argument("--no-figures", action="store_true", help="do not write docs/measured/reliability")
    asked = parser.parse_args()
    import_readers()
    began = time.monotonic()
    answers: list[Answer] = []
    by_cause: dict[str, list[Answer]] = defaultdict(list)
    for answer in run_cases(
        asked.seed, asked.first, asked.first + asked.inputs, until=began + 60 * asked.minutes
    ):
        answers.append(answer)
        for problem in answer["problems"]:
            if signature(problem) not in by_cause:
                print(f"input {answer['number']}: {problem}", flush=True)
            by_cause[signature(problem)].append(answer)
        if len(answers) % 500 == 0:
            print(
                f"{len(answers)} inputs, {time.monotonic() - began:.0f} s, {len(by_cause)} causes", flush=True
            )
    for number, (cause, broken) in enumerate(by_cause.items()):
        print(f"{len(broken):5} x {cause}  (inputs {', '.join(str(one['number']) for one in broken[:4])})")
        _keep(asked.seed, broken[0]["number"], cause, FAILURES / f"{number:03d}.json", shrink=asked.shrink)
    found = _figures(answers, by_cause, time.monotonic() - began)
    print(found)
    if not asked.no_figures:
        figures.write(
            "fuzz", f"python -m tests.campaigns.fuzz --inputs {asked.inputs} --seed {asked.seed}", found
        )
    sys.exit(1 if by_cause else 0)


def import_readers() -> None:
    """What takes long to import, before processes are forked off."""
    import vdsgen.model.cache.content
    import vdsgen.model.cache.store
    import vdsgen.model.data.captions
    import vdsgen.model.export.export
    import vdsgen.model.json_lines
    import vdsgen.profile.build  # noqa: F401

    for number in range(40):  # and what makes the inputs
        make_case(0, number)
    examples = Path(__file__).parents[2] / "examples"
    rendered = str(examples / "rendered" / "cpu-demo@cpu-demo")
    planned = (str(examples / "experiments/cpu-demo.yaml"), "--lab", str(examples / "labs/cpu-demo.yaml"))
    for argv in (("plan", *planned), ("check", rendered), ("diff", rendered, rendered), ("lint", rendered)):
        CliRunner().invoke(cli, argv)


def _keep(seed: int, number: int, cause: str, path: Path, *, shrink: bool) -> None:
    """Smaller, where that is quick: in a process of its own, since it runs the case again and again."""
    import os

    path.parent.mkdir(parents=True, exist_ok=True)
    case = make_case(seed, number)
    path.write_text(as_json(case))
    if not shrink:
        return
    pid = os.fork()
    if pid == 0:
        try:
            _shrink(seed, number, cause, path)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _shrink(seed: int, number: int, cause: str, path: Path) -> None:
    from tests.campaigns.fuzzing.check import limit_memory
    from tests.campaigns.fuzzing.sandbox import Sandbox
    from tests.campaigns.fuzzing.scripts import make_stand_ins
    from tests.campaigns.fuzzing.shrink import smallest

    limit_memory()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder)
        make_stand_ins(root / "programs")
        (root / "sandbox").mkdir()
        sandbox = Sandbox(root / "sandbox", root / "cache")
        deadline = time.monotonic() + 60

        def breaks(case: Any) -> bool:
            if time.monotonic() > deadline:
                return False
            problems = check(case, sandbox, root / "programs").problems
            return any(signature(problem) == cause for problem in problems)

        path.write_text(as_json(smallest(make_case(seed, number), breaks)))


def _figures(answers: list[Answer], by_cause: dict[str, list[Answer]], seconds: float) -> dict[str, Any]:
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for answer in answers:
        counts = kinds.setdefault(answer["kind"], Counter())
        counts["inputs"] += 1
        counts["commands"] += len(answer["exit_codes"])
        counts["refused"] += sum(code == 2 for code in answer["exit_codes"])
        counts["broken promises"] += len(answer["problems"])
    slowest = max(answers, key=lambda answer: answer["seconds"], default=None)
    return {
        "inputs": len(answers),
        "commands": sum(len(answer["exit_codes"]) for answer in answers),
        "minutes": round(seconds / 60, 1),
        "kinds": {kind: dict(counts) for kind, counts in kinds.items()},
        "causes": len(by_cause),
        "scripts": sum(answer["scripts"] for answer in answers),
        "slowest_seconds": round(slowest["seconds"], 1) if slowest else 0.0,
        "planning_limit_seconds": PLANNING_LIMIT_SECONDS,
        "traced_one_in": REAL_ONE_IN,
        "cut_off": sum(answer["cut_off"] for answer in answers),
        "over_limit": sum(answer["seconds"] > LIMIT_SECONDS for answer in answers),
    }


def section(measured: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {kind} | {counts['inputs']:,} | {counts['commands']:,} | {counts['refused']:,} "
        f"| {counts['broken promises']} |"
        for kind, counts in measured["kinds"].items()
    )
    runs, limit = measured["commands"], measured["planning_limit_seconds"]
    return f"""\
## Hostile and broken inputs

{measured["inputs"]:,} inputs went through {runs:,} runs of the real commands in
{measured["minutes"]:g} minutes. [security.md](security.md) says what they are made of and what must hold;
what did not is counted as a broken promise.

| input | inputs | runs | refused | broken promises |
|---|---|---|---|---|
{rows}

{measured["scripts"]:,} rendered scripts and printed commands were run by bash with stand-ins for all
programs. {measured["cut_off"]} runs that planned were cut off after {limit:g} seconds of a processor while
they searched. One in {measured["traced_one_in"]} inputs may have a model traced; the others plan with
a stored profile in its place.
"""


if __name__ == "__main__":
    main()
