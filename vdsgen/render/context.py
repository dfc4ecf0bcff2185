"""What templates see: plain values only, so that nothing in them can be called."""

from __future__ import annotations

import json
from typing import Any

from vdsgen.planner.explanations.tables import binding_sentences, waterfall_table
from vdsgen.planner.tables import choice_table, speed_table
from vdsgen.planner.words import seconds
from vdsgen.render.engine_config import engine_config, planned_config
from vdsgen.render.formats import code, gib
from vdsgen.render.kubernetes import pytorch_job
from vdsgen.render.placement import Placement, placement
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.launching import Slurm
from vdsgen.spec.plan import Plan, Stage
from vdsgen.spec.planned_keys import leaves


def template_context(plan: Plan, experiment: Experiment) -> dict[str, Any]:
    """The same for every template: `plan` and `experiment` as in their files, `engine` (the sections of
    ds_config.json), `launch` (nodes, ranks, hosts), `slurm` (where the pool's jobs
    go through it) and `tables` (rows for PLAN.md)."""
    place = placement(plan)
    return {
        "plan": plan.model_dump(mode="json"),
        "experiment": experiment.model_dump(mode="json"),
        "engine": engine_config(plan, experiment),
        "launch": {
            "nodes": place.nodes,
            "ranks_per_node": place.ranks_per_node,
            "hosts": list(place.hosts),
            "slots": list(place.slots),
            "devices": [list(devices) for devices in place.devices],
            "include": place.include,
            "on_cpu": plan.inputs.pool.on_processors,
        },
        "pytorch_job": pytorch_job(plan, experiment) if plan.inputs.pool.launcher == "kubernetes" else None,
        "slurm": slurm_job(plan, place) if plan.inputs.pool.launcher == "slurm" else None,
        "tables": {
            "choice": choice_rows(plan),
            "memory": memory_rows(plan),
            "speed": speed_rows(plan, experiment),
            "time": time_rows(plan),
            "bindings": binding_lines(plan),
            "waterfall": waterfall_rows(plan),
            "overrides": override_rows(plan, experiment),
        },
        "peak": peak_facts(plan),
    }


def slurm_job(plan: Plan, place: Placement) -> dict[str, Any]:
    """What the batch script asks for: SLURM's own keys from the lab file, and a rank's share of the cores."""
    pool = plan.inputs.pool
    job = pool.slurm or Slurm()
    cores = pool.cpu_cores
    memory = job.memory_gib_per_node
    return {
        **{key: getattr(job, key) for key in ("partition", "account", "qos", "constraint", "time")},
        "notice_seconds": job.notice_seconds,
        "memory_mib": None if memory is None else int(memory * 1024),
        "cores_per_rank": None if cores is None else max(1, cores // place.ranks_per_node),
    }


def peak_facts(plan: Plan) -> dict[str, Any]:
    """The stage that needs most of its capacity."""
    fullest = max(plan.stages, key=lambda stage: stage.memory.peak_bytes / max(1, stage.capacity_bytes))
    return {
        "stage": fullest.index,
        "bytes": fullest.memory.peak_bytes,
        "capacity_bytes": fullest.capacity_bytes,
        "headroom_bytes": fullest.capacity_bytes - fullest.memory.peak_bytes,
    }


def choice_rows(plan: Plan) -> list[list[str]]:
    """The settings that a reviewer looks for first."""
    rows = [["setting", "value"], ["GPUs", str(plan.parallel.world_size)]]
    return rows + [list(row) for row in choice_table(plan).rows]


def speed_rows(plan: Plan, experiment: Experiment) -> list[list[str]]:
    """What a step takes, and what that means for the run."""
    rows = [["predicted", "value"], ["step", seconds(plan.predicted.step_seconds)]]
    return rows + [list(row) for row in speed_table(plan, experiment.training).rows]


def memory_rows(plan: Plan) -> list[list[str]]:
    """GiB on each GPU, a column a stage: what is held, what comes on top, the sum, the capacity."""
    rows = [["GiB on each GPU", *(f"stage {stage.index}" for stage in plan.stages)]]
    rows.append(["layers", *(f"{stage.layers[0]} to {stage.layers[1] - 1}" for stage in plan.stages)])
    for label, key in (
        ("parameters", "parameters_bytes"),
        ("gradients", "gradients_bytes"),
        ("optimizer states", "optimizer_bytes"),
        ("activations", "activations_bytes"),
        ("communication buffers", "communication_bytes"),
        ("workspace of the optimizer step", "workspace_bytes"),
        ("reserve (context, fragmentation)", "reserve_bytes"),
        ("**peak**", "peak_bytes"),
    ):
        rows.append([label, *(gib(getattr(stage.memory, key)) for stage in plan.stages)])
    rows.append(["capacity", *(gib(stage.capacity_bytes) for stage in plan.stages)])
    rows.append(["headroom", *(gib(_headroom_bytes(stage)) for stage in plan.stages)])
    for label, key in (
        ("offloaded to host memory", "host_bytes"),
        ("offloaded to NVMe", "nvme_bytes"),
    ):
        if any(getattr(stage, key) for stage in plan.stages):
            rows.append([label, *(gib(getattr(stage, key)) for stage in plan.stages)])
    return rows


def _headroom_bytes(stage: Stage) -> int:
    return stage.capacity_bytes - stage.memory.peak_bytes


def binding_lines(plan: Plan) -> list[str]:
    """What twice as much of each resource would win; none where the plan is not explained."""
    return binding_sentences(plan.explanations.bindings) if plan.explanations else []


def waterfall_rows(plan: Plan) -> list[list[str]]:
    """From naive to planned, a row a measure; none where the plan is not explained."""
    if plan.explanations is None:
        return []
    return [list(row) for row in waterfall_table(plan.explanations.waterfall).rows]


def override_rows(plan: Plan, experiment: Experiment) -> list[list[str]]:
    """The lab's own settings beside what would be rendered without them; none where it has none."""
    own = experiment.overrides.ds_config
    if not own:
        return []
    planned = dict(leaves(planned_config(plan, experiment)))
    rows = [["ds_config.json", "without", "here"]]
    for path, value in leaves(own):
        without = code(json.dumps(planned[path])) if path in planned else "left out"
        rows.append([code(".".join(path)), without, code(json.dumps(value))])
    return rows


def time_rows(plan: Plan) -> list[list[str]]:
    """One micro-batch, a column a stage."""
    return [
        ["one micro-batch", *(f"stage {stage.index}" for stage in plan.stages)],
        ["forward", *(seconds(stage.forward_seconds) for stage in plan.stages)],
        ["backward, with recomputation", *(seconds(stage.backward_seconds) for stage in plan.stages)],
    ]
