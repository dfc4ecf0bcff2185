"""One rank that trains a tiny model under one config after another, and goes on from checkpoints of others.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case. A
case has `name`, `config`, `steps`, and either `save_at` (a step to save a checkpoint after, with all states
beside it) or `source`, the case whose checkpoint it goes on from: `by` DeepSpeed's own loader, or by what
`vdsgen launch --resume` does. What a case raises is its result: every rank raises it alike, or the campaign's
time runs out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from deepspeed.accelerator import get_accelerator

from tests.model.checkpoint_worker import rendered_of
from tests.model.layout_worker import GEOMETRY, MODEL, SEED, start_nowhere_at_zero
from tests.model.universal.worker import (
    all_states,
    compared,
    frozen_weights,
    of_all_ranks,
    scalars,
    splits_of_ranks,
    train_on,
)
from vdsgen.model import checkpoint
from vdsgen.model.build import build_engine
from vdsgen.model.console import is_first_rank
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.universal import resume
from vdsgen.spec.checkpoints import tag_of
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.training import Saving

ELSEWHERE = "going on with"
"""Is in the sentence that says that a checkpoint is put into another layout or optimizer."""


def nothing_is_refused(before: Rendered, now: Rendered) -> list[str]:
    """In the place of vdsgen.spec.continuing's, which asks the experiments around configs: there are none."""
    del before, now
    return []


def gone_on(engine: TrainingEngine, case: dict[str, Any], run: Path) -> dict[str, Any]:
    """Loads the checkpoint of `source`; the states afterwards beside those that were saved."""
    said = io.StringIO()
    if case["by"] == "deepspeed":
        folder = run / "checkpoints"
        path, _ = engine.engine.load_checkpoint(str(folder), tag=tag_of(case["saved_at"]))
        answer: dict[str, Any] = {"loaded": path is not None}
    else:
        before = rendered_of(case["old"])
        with (
            contextlib.redirect_stdout(said),
            mock.patch.object(checkpoint, "plan_of_checkpoint", return_value=before),
        ):
            checkpoint.resume(engine, run, rendered_of(case["config"]))
        answer = {"loaded": True, "converted": ELSEWHERE in said.getvalue()}
    found = compared(engine, torch.load(run / "states.pt", weights_only=True))
    return answer | {key: found[key] for key in ("other", "furthest", "same_scalars", "adam_steps")}


def run_case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    config = case["config"]
    get_accelerator().is_fp16_supported = lambda: "fp16" in config
    resumes = "source" in case
    # A resumed engine begins with other weights than it has to go on with.
    engine = build_engine(config, MODEL, GEOMETRY, SEED + resumes)
    answer: dict[str, Any] = {"optimizer": type(engine.engine.optimizer).__name__, "figures": []}
    step = 0
    if resumes:
        answer |= gone_on(engine, case, folder / case["source"])
        step = case["saved_at"]
    if "save_at" in case:
        answer["figures"] = train_on(engine, case, 0, case["save_at"])
        step, run = case["save_at"], folder / case["name"]
        checkpoint.save(engine, run, step, rendered_of(config), Saving(keep=2))
        content = {
            "states": all_states(engine),
            "frozen": of_all_ranks(frozen_weights(engine)),
            "scalars": scalars(engine),
        }
        if is_first_rank():
            torch.save(content, run / "states.pt")
        torch.distributed.barrier()
    answer["figures"] += train_on(engine, case, step, case["steps"])
    answer["weights"] = fingerprint(all_states(engine)["fp32"])
    return answer


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """Of every bit of every weight, whatever ranks held it."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    resume.splits_of_ranks = splits_of_ranks
    checkpoint.check_continues = nothing_is_refused  # type: ignore[attr-defined]
    results = []
    for case in job["cases"]:
        try:
            results.append(run_case(case, Path(job["folder"])))
        except Exception as error:
            last = str(error).strip().splitlines() or [""]
            results.append({"error": f"{type(error).__name__}: {last[0]}"})
        print(case["name"], results[-1].get("error", ""), flush=True)
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
