"""A Kubeflow PyTorchJob (kubeflow.org/v1) of a plan, as plain values."""

from __future__ import annotations

import re
from typing import Any

from vdsgen.render.placement import placement
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.launching import Kubernetes
from vdsgen.spec.plan import Plan

JOB_NAME_CHARACTERS = 50
"""Pods add `-worker-N` to it, and a host name has 63."""


TORCHRUN_SECONDS = 10
"""What it has left of a pod's notice to end by itself."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a place in a container, where NCCL looks for it


def pytorch_job(plan: Plan, experiment: Experiment) -> dict[str, Any]:
    """The manifest. Of a plan for a pool with `launcher: kubernetes`."""
    keys, place = plan.inputs.pool.kubernetes, placement(plan)
    assert keys is not None, "the pool's validator asks for it"
    pod = {
        **({} if keys.service_account is None else {"serviceAccountName": keys.service_account}),
        "terminationGracePeriodSeconds": keys.notice_seconds,
        "containers": [_container(plan, keys, place.nodes, place.ranks_per_node)],
        "volumes": [
            *(
                {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim.claim}}
                for index, claim in enumerate(keys.claims)
            ),
            *_shared_memory(keys),
        ],
    }
    # Started again by Kubernetes, as often as `backoffLimit` says.
    replica = {"restartPolicy": "OnFailure", "template": {"spec": pod}}
    replicas = {"Master": {"replicas": 1, **replica}}
    if place.nodes > 1:
        replicas["Worker"] = {"replicas": place.nodes - 1, **replica}
    namespace = {} if keys.namespace is None else {"namespace": keys.namespace}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": job_name(experiment.name), **namespace},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": keys.restarts},
            "pytorchReplicaSpecs": replicas,
        },
    }


def job_name(name: str) -> str:
    """As Kubernetes takes it: small letters, digits and `-`, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:JOB_NAME_CHARACTERS].strip("-")
    return plain if plain[:1].isalpha() else f"job-{plain}"


def _container(plan: Plan, keys: Kubernetes, nodes: int, ranks: int) -> dict[str, Any]:
    """The operator finds it by name, and says in RANK which pod it is (training-operator,
    pkg/controller.v1/pytorch/envvar.go); Kubernetes replaces `$(NAME)` by the variable, without a shell."""
    pool = plan.inputs.pool
    command = [
        "python", "-m", "torch.distributed.run",
        "--nnodes", str(nodes), "--node-rank", "$(RANK)", "--nproc-per-node", str(ranks),
        "--master-addr", "$(MASTER_ADDR)", "--master-port", "$(MASTER_PORT)",
        "--shutdown-timeout", str(max(1, keys.notice_seconds - TORCHRUN_SECONDS)),
        "--module", "vdsgen.launch.rank", "--continue", f"{keys.output}/logs",
        "--plan-dir", keys.directory, "--output", keys.output, "--save-on-sigterm",
    ]  # fmt: skip
    container: dict[str, Any] = {
        "name": "pytorch",
        "image": keys.image,
        "command": command,
        "workingDir": keys.claims[0].mount,
    }
    if pool.on_processors:
        container["env"] = [{"name": "DS_ACCELERATOR", "value": "cpu"}]
    resources: dict[str, str] = {}
    if not pool.on_processors:
        resources[f"{keys.gpu_resource or 'nvidia.com'}/gpu"] = str(ranks)
    if pool.cpu_cores is not None:
        # A node's cores, in proportion where the job has some of its GPUs only.
        resources["cpu"] = str(max(1, pool.cpu_cores * ranks // pool.gpus_per_node))
    if resources:
        container["resources"] = {"limits": resources}
    container["volumeMounts"] = [
        {"name": f"claim-{index}", "mountPath": claim.mount} for index, claim in enumerate(keys.claims)
    ]
    if keys.shared_memory_gib is not None:
        container["volumeMounts"].append({"name": "shared-memory", "mountPath": SHARED_MEMORY})
    return container


def _shared_memory(keys: Kubernetes) -> list[dict[str, Any]]:
    if keys.shared_memory_gib is None:
        return []
    size = f"{int(keys.shared_memory_gib * 1024)}Mi"
    return [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": size}}]
