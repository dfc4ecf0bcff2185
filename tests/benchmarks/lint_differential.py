"""`vdsgen lint` against DeepSpeed on many random configs.

    python -m tests.benchmarks.lint_differential --configs 1000 --seed 1 \\
        --out docs/measured/lint_differential.json

Both see the same files (tests/review/lint/configs.py); DeepSpeed initialises an engine of each on a CPU rank
and trains a step (tests/review/lint/oracle_worker.py). Cases that this machine cannot judge, for want of a
GPU's kernels, packages or disks, are counted apart. The same seed gives the same configs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.review.lint.configs import cases
from tests.review.lint.differential import Verdict, verdicts
from tests.review.lint.oracle import Case, Outcome, judged
from vdsgen.catalog.engine_keys import engine_data

BATCH = 500
"""Cases to a start of the workers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compile", action="store_true", help="with DeepSpeed's own operators, built first")
    chosen = parser.parse_args()
    all_cases = list(cases(chosen.configs, chosen.seed))
    outcomes: list[Outcome] = []
    for start in range(0, len(all_cases), BATCH):
        outcomes += judged(all_cases[start : start + BATCH], compiled=chosen.compile)
        print(f"{len(outcomes)} of {len(all_cases)}", file=sys.stderr)
    text = json.dumps(result(all_cases, outcomes, chosen.seed), indent=1) + "\n"
    if chosen.out is None:
        print(text, end="")
    else:
        chosen.out.write_text(text)


def result(all_cases: Sequence[Case], outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """Counts, and every disagreement in full."""
    found = verdicts(all_cases, outcomes)
    accepted = [verdict for verdict in found if verdict.outcome.accepted]
    unjudged = [verdict for verdict in found if verdict.outcome.obstacle is not None]
    refused = [v for v in found if not v.outcome.accepted and v.outcome.obstacle is None]
    false_accepts = [verdict for verdict in found if verdict.false_accept]
    false_alarms = [verdict for verdict in found if verdict.false_alarm]
    named = Counter(check for v in refused for check in {error.partition(":")[0] for error in v.errors})
    return {
        "deepspeed": engine_data()["deepspeed"],
        "configs": len(found),
        "seed": seed,
        "accepted": len(accepted),
        "refused": len(refused),
        "unjudged": dict(sorted(Counter(v.outcome.obstacle for v in unjudged).items())),
        "false_accepts": [_case(verdict) for verdict in false_accepts],
        "false_alarms": [_case(verdict) for verdict in false_alarms],
        "refused_and_explained": sum(verdict.explained for verdict in refused),
        "refused_for_another_reason": [
            _case(v) for v in refused if v.errors and not v.explained
        ],
        "checks_that_named_a_refusal": dict(sorted(named.items())),
    }  # fmt: skip


def _case(verdict: Verdict) -> dict[str, Any]:
    case, outcome = verdict.case, verdict.outcome
    return {
        "origin": case.origin,
        "world_size": case.world_size,
        "stages": case.stages,
        "config": case.text,
        "deepspeed": outcome.error,
        "frame": outcome.frame,
        "lint": list(verdict.errors),
    }


if __name__ == "__main__":
    main()
