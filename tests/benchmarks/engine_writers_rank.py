"""One rank of tests/benchmarks/engine_writers.py: saves with a writer of DeepSpeed's own, trains on, and
looks at what is on the disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.model.checkpoint_worker import trained
from tests.model.layout_worker import GEOMETRY, MODEL, SEED
from tests.model.test_checkpoint import BF16, case
from vdsgen.model.build import build_engine


def masters(engine: Any) -> list[torch.Tensor]:
    optimizer = engine.optimizer
    held = getattr(optimizer, "fp32_groups_flat_partition", None) or optimizer.single_partition_of_fp32_groups
    return [tensor.detach().clone() for tensor in held]


def saved_masters(path: Path) -> list[torch.Tensor]:
    state = torch.load(path, weights_only=False)["optimizer_state_dict"]
    found: list[torch.Tensor] = state["single_partition_of_fp32_groups"]
    return found


def written(folder: Path, pattern: str, process: Any) -> list[Path]:
    """The files, once they grow no more; [] where none has come in a minute, or nobody is left to write."""
    size, deadline = -1, time.monotonic() + 60
    while time.monotonic() < deadline:
        files = sorted(folder.rglob(pattern))
        now = sum(path.stat().st_size for path in files)
        if now and now == size:
            return files
        if not now and not process.is_alive():
            return []
        size = now
        time.sleep(1)
    return []


def observed(job: dict[str, Any]) -> str:
    """What came of it, in a sentence."""
    rank, folder = int(os.environ["RANK"]), Path(job["folder"])
    # DeepSpeed's launcher sets them, and its writers read them.
    os.environ |= {"CROSS_RANK": "0", "CROSS_SIZE": "1"}
    config = case("writer", stages=job["stages"], zero_stage=job["zero_stage"], **BF16)["config"]
    config["checkpoint"] = {"writer": job["writer"]}
    try:
        training = build_engine(config, MODEL, GEOMETRY, SEED)
        engine = training.engine
        trained(training, config, 0, 1)
        process = getattr(engine.checkpoint_engine, "ckpt_process", None)
        if process is not None:  # a slow disk: the writer gets nowhere for two steps
            os.kill(process.pid, signal.SIGSTOP)
        before = masters(engine)
        engine.save_checkpoint(str(folder), tag="one", save_latest=False)
        at_once = len(list(folder.rglob("*.pt")))
        trained(training, config, 1, 3)
        committed = engine.checkpoint_engine.get_commit_info() is None
        if process is not None:
            os.kill(process.pid, signal.SIGCONT)
        stage, data = (rank, 0) if job["stages"] > 1 else (0, rank)
        files = written(folder, f"*pp_rank_{data}_mp_rank_{stage:02d}_optim*", process)
        same = bool(files) and all(
            torch.equal(one[: len(other)], other[: len(one)])
            for one, other in zip(saved_masters(files[0]), before, strict=True)
        )
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:110]}"
    what = "none" if not files else "as at the save" if same else "of later steps"
    return (
        f"{at_once} files when it returned, committed two steps later: {committed}; "
        f"this rank's optimizer file: {what}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Writers' processes talk as long as they live: not into the answer.
    answers = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.write(answers, (json.dumps(observed(json.load(sys.stdin))) + "\n").encode())
    for writer in multiprocessing.active_children():
        writer.kill()
    os._exit(0)  # writers that are gone would be waited for
