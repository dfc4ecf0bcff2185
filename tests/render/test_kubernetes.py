"""A PyTorchJob, held against the published models of Kubeflow's training operator and of Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.rendered import render_small
from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.errors import InputError, VdsgenError
from vdsgen.launch.start import Request, prepare
from vdsgen.render.kubernetes import job_name
from vdsgen.render.render import FILES, files_of, render_plan
from vdsgen.spec.launching import Kubernetes

KEYS: dict[str, Any] = {
    "image": "registry.example/vdsgen@sha256:0a",
    "claims": ({"claim": "lab", "mount": "/lab"}, {"claim": "runs", "mount": "/runs"}),
    "directory": "/lab/configs/1.5b",
    "output": "/runs/1.5b",
}


def keys(**changes: Any) -> Kubernetes:
    return Kubernetes.model_validate({**KEYS, **changes}, strict=False)


def manifest(nodes: int = 2, *, pool: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    lab = pool_of(nodes, 4, launcher="kubernetes", kubernetes=keys(**changes), **(pool or {}))
    plan = plan_of(data=2 * nodes, pool=lab)
    files = render_plan(plan, small_experiment())
    assert tuple(files) == (*FILES, "pytorchjob.yaml") == files_of(plan)
    assert files == render_plan(plan, small_experiment())
    read: dict[str, Any] = yaml.safe_load(files["pytorchjob.yaml"])
    return read


def test_a_pod_a_node_and_a_rank_a_gpu() -> None:
    job = manifest(namespace="video", service_account="trainer", shared_memory_gib=16.0)
    assert job["metadata"] == {"name": "small", "namespace": "video"}
    assert job["spec"]["runPolicy"] == {"cleanPodPolicy": "Running", "backoffLimit": 3}
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert {kind: replica["replicas"] for kind, replica in replicas.items()} == {"Master": 1, "Worker": 1}
    assert replicas["Master"]["template"] == replicas["Worker"]["template"]
    pod = replicas["Master"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "4"}}
    assert container["command"] == [
        "python", "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", "$(RANK)",
        "--nproc-per-node", "4", "--master-addr", "$(MASTER_ADDR)", "--master-port", "$(MASTER_PORT)",
        "--shutdown-timeout", "110",
        "--module", "vdsgen.launch.rank", "--continue", "/runs/1.5b/logs",
        "--plan-dir", "/lab/configs/1.5b", "--output", "/runs/1.5b", "--save-on-sigterm",
    ]  # fmt: skip
    assert container["volumeMounts"][-1] == {"name": "shared-memory", "mountPath": "/dev/shm"}
    assert pod["volumes"][-1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16384Mi"}
    assert pod["serviceAccountName"] == "trainer"
    assert pod["terminationGracePeriodSeconds"] == 120


def test_one_node_has_no_workers_and_processors_no_gpus() -> None:
    job = manifest(1, pool={"gpu": "cpu", "cpu_cores": 8})
    (kind, replica), *others = job["spec"]["pytorchReplicaSpecs"].items()
    assert (kind, others) == ("Master", [])
    container = replica["template"]["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"cpu": "8"}}
    assert container["env"] == [{"name": "DS_ACCELERATOR", "value": "cpu"}]


@pytest.mark.parametrize(
    "changes", [{}, {"namespace": "a", "service_account": "b", "shared_memory_gib": 1.0}]
)
def test_the_published_models_know_every_key(changes: dict[str, Any]) -> None:
    training = pytest.importorskip("kubeflow.training.models", reason="pip install kubeflow-training")
    checked = check_keys(training, "KubeflowOrgV1PyTorchJob", manifest(**changes), "job")
    assert checked > 40


def check_keys(models: Any, kind: str, value: Any, where: str) -> int:
    """Every key of `value` is one of the model's, and what it holds is of the published type. Counts them."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), where
        return sum(check_keys(models, found[1], item, f"{where}[]") for item in value)
    if found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        assert isinstance(value, dict), where
        return sum(check_keys(models, found[1], item, f"{where}.{key}") for key, item in value.items())
    plain = {"str": (str,), "int": (int,), "bool": (bool,)}
    if kind in plain or kind == "object":
        assert kind == "object" or isinstance(value, plain[kind]), (where, kind, value)
        return 1
    model = getattr(models, kind, None)
    if model is None:
        model = getattr(pytest.importorskip("kubernetes.client.models"), kind)
    names = {theirs: ours for ours, theirs in model.attribute_map.items()}
    assert set(value) <= set(names), (where, set(value) - set(names))
    return 1 + sum(
        check_keys(models, model.openapi_types[names[key]], item, f"{where}.{key}")
        for key, item in value.items()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "x $(RANK)"},
        {"image": "-x"},
        {"directory": "/elsewhere/plan"},
        {"output": "/lab/../etc"},
        {"output": "/runs/$(RANK)"},
        {"claims": ()},
        {"namespace": "Video"},
        {"service_account": "a b"},
    ],
)
def test_keys_that_say_too_much_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        keys(**changes)


def test_the_pool_and_its_keys_go_together() -> None:
    with pytest.raises(ValueError, match="`launcher: kubernetes` needs it"):
        pool_of(1, 4, launcher="kubernetes")
    with pytest.raises(ValueError, match="stands without `launcher: kubernetes`"):
        pool_of(1, 4, kubernetes=keys())
    with pytest.raises(ValueError, match="hosts stands beside `launcher: kubernetes`"):
        pool_of(1, 4, ("a",), launcher="kubernetes", kubernetes=keys())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("article-1.5b", "article-1-5b"), ("1.5b", "job-1-5b"), ("A_B", "a-b"), ("x" * 80, "x" * 50)],
)
def test_names_are_kubernetes_own(name: str, expected: str) -> None:
    assert job_name(name) == expected


def test_a_template_that_starts_something_else_is_refused(tmp_path: Path) -> None:
    template = '{% extends "bundled/pytorchjob.yaml.j2" %}'
    (tmp_path / "pytorchjob.yaml.j2").write_text(template)
    lab = pool_of(1, 4, launcher="kubernetes", kubernetes=keys())
    render_plan(plan_of(pool=lab), small_experiment(), tmp_path)
    (tmp_path / "pytorchjob.yaml.j2").write_text("{{ pytorch_job | yaml | replace('sha256:0a', 'latest') }}")
    with pytest.raises(InputError, match="starts something else"):
        render_plan(plan_of(pool=lab), small_experiment(), tmp_path)


def test_launching_such_a_directory_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    lab = pool_of(1, 4, gpu="cpu", launcher="kubernetes", kubernetes=keys())
    directory = render_small(tmp_path / "plan", pool=lab)
    with pytest.raises(VdsgenError, match="kubectl apply --filename"):
        prepare(Request(directory, tmp_path / "run"))
    assert prepare(Request(directory, tmp_path / "run", launcher="torchrun")).commands
