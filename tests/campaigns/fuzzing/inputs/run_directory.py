"""Run directories: manifests of checkpoints, their files, metrics, and what a run says of itself."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
from functools import cache
from typing import Any

from tests.campaigns.fuzzing.case import Argv, Case
from tests.campaigns.fuzzing.inputs.engine_config import odd_json
from tests.campaigns.fuzzing.inputs.rendered import clips, launched, rendered
from tests.campaigns.fuzzing.trees import changed, damaged
from tests.campaigns.fuzzing.values import CANARY, PATHS, SHELL, text
from vdsgen.spec.run import layout_of

STEP = "run/checkpoints/step-00000003"
STATES = "mp_rank_00_model_states.pt"
KEYS = (
    "schema_version", "step", "plan_sha256", "layout", "files", "sha256", "dtype", "partition", "zero_stage", "loss",
    "step_seconds", "rendered", "starts", "clips", "measured",
)  # fmt: skip


@cache
def _states() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"module": {"0.weight": torch.arange(6.0).view(2, 3), "1.bias": torch.zeros(3)}}, stream)
    return stream.getvalue()


class _Obeyed:
    """Unpickled by anything that runs what a file says, it makes a file."""

    def __reduce__(self) -> Any:
        return (open, (CANARY, "w"))


def malicious_states() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"module": _Obeyed()}, stream)
    return stream.getvalue()


def case(rng: random.Random) -> Case:
    plan = rendered("cpu-demo", "cpu-demo")
    files = {f"plan/{name}": content for name, content in plan.items()} | clips()
    states = _damaged_states(rng)
    record = {
        "schema_version": 1, "step": 3, "plan_sha256": hashlib.sha256(plan["plan.json"]).hexdigest(),
        "layout": {**layout_of(json.loads(plan["ds_config.json"])).model_dump(mode="json"), "zero_stage": 0, "partition": [],
                   "pipeline_parallel_size": 1},
        "files": {STATES: len(states)}, "sha256": {STATES: hashlib.sha256(states).hexdigest()},
    }  # fmt: skip
    files |= {
        f"{STEP}/{STATES}": states,
        f"{STEP}/complete.json": _json(rng, record),
        "run/checkpoints/latest": rng.choice((b"step-00000003", b"../../../../etc", b"\xff", b"", text(rng).encode("utf-8", "replace"))),
        "run/run.json": _json(rng, {"schema_version": 1, "rendered": rng.choice(("plan", "plan", rng.choice(PATHS))), "steps": 6,
                                    "clips": {"usable": 3, "fingerprint": "0"}, "starts": [{"at": "2026", "from_step": 0}]}),
        "run/metrics.jsonl": _lines(rng),
        "run/summary.json": _json(rng, {"measured": {"peak_memory_bytes_by_stage": [1, 2], "memory_meaning": "x"}}),
        "run/alarms.jsonl": _lines(rng),
    }  # fmt: skip
    links = (
        {
            f"{STEP}/{rng.choice((STATES, 'complete.json'))}": rng.choice(
                ("../../../plan/plan.json", "/dev/null", "/etc/passwd", "loop")
            )
        }
        if rng.random() < 0.04
        else {}
    )
    pipes = (f"{STEP}/{rng.choice((STATES, 'complete.json'))}",) if rng.random() < 0.02 else ()
    commands: list[Argv] = [
        (*launched(rng, "plan", "run"), "--resume"),
        (
            "export",
            rng.choice(("run", STEP)),
            "--out",
            "out",
            *rng.choice(((), ("--ema",), ("--rendered", "plan"))),
        ),
        ("@checkpoints", "run"),
        ("@metrics", "run"),
        ("@states", f"{STEP}/{STATES}"),
    ]
    return Case(
        kind="run directory and checkpoint", files=files, links=links, pipes=pipes,
        commands=tuple(rng.sample(commands, rng.choice((1, 2, 3)))),
        named=("run", "plan", "train.yaml", STATES, "complete.json", "step-00000003"),
    )  # fmt: skip


def _damaged_states(rng: random.Random) -> bytes:
    how = rng.random()
    if how < 0.4:
        return _states()
    if how < 0.55:
        return malicious_states()
    if how < 0.65:
        return pickle.dumps(rng.choice(([], {"module": {}}, _Obeyed(), 1)), protocol=rng.choice((0, 2, 4)))
    return damaged(rng, _states())


def _json(rng: random.Random, tree: dict[str, Any]) -> bytes:
    how = rng.random()
    if how < 0.5:
        return json.dumps(tree).encode()
    if how < 0.6 and isinstance(tree.get("files"), dict):
        name = rng.choice(
            (*PATHS, *SHELL, "../../../plan/plan.json", "/etc/passwd", "complete.json", ".", "a\0b", "latest")
        )
        tree["files"] = {**tree["files"], name: rng.choice((0, 1, 2**63, 2**70, -1, None))}
        return json.dumps(tree).encode()
    if how < 0.85:
        return json.dumps(changed(rng, tree, KEYS, gentle=how < 0.65)).encode()
    if how < 0.93:
        return damaged(rng, json.dumps(tree, indent=1).encode())
    return odd_json(rng).encode("utf-8", "surrogatepass")


def _lines(rng: random.Random) -> bytes:
    lines = []
    for step in range(1, 6):
        line: dict[str, Any] = {
            "step": step, "loss": 1.0, "grad_norm": 0.1, "loss_scale": 1, "learning_rate": 0.1, "step_seconds": 0.5,
            "data_seconds": 0.1, "samples_per_second": 8, "peak_memory_bytes": [1, 2],
        }  # fmt: skip
        lines.append(_json(rng, line) if rng.random() < 0.3 else json.dumps(line).encode())
    content = b"\n".join(lines) + b"\n"
    return damaged(rng, content) if rng.random() < 0.3 else content
