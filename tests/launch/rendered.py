"""A small rendered directory, made by the real renderer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.render.render import render_plan
from vdsgen.spec.data import Data


def render_small(directory: Path, *, videos: Path | str = "clips", gpu: str = "cpu", **plan: Any) -> Path:
    """2 x 2 ranks on a processor unless told otherwise; `videos` need not exist."""
    pool = plan.pop("pool", None) or pool_of(
        1, plan.get("pipeline", 2) * plan.get("data", 2), gpu=gpu, hosts=plan.pop("hosts", None)
    )
    experiment = small_experiment()
    experiment = experiment.model_copy(
        update={"data": Data(videos=str(videos), frames=8, height=64, width=64)}
    )
    files = render_plan(plan_of(dtype=plan.pop("dtype", "fp32"), pool=pool, **plan), experiment)
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory
