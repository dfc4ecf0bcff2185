"""`vdsgen scan`: what it prints and writes. tests/scan has the machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.scan.machines import DGX_A100, FOUR_4090, FakeNvml, answer_of
from vdsgen.catalog.inputs import open_lab
from vdsgen.cli.main import cli
from vdsgen.scan import scan
from vdsgen.scan.hosts import Heard

EXPERIMENT = Path(__file__).parents[2] / "examples" / "experiments" / "article-1.5b.yaml"


def vdsgen(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ask_slurm", lambda: None)


def this_is(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "this_machine", lambda: answer_of(nvml))


@pytest.mark.parametrize("nvml", [FOUR_4090, DGX_A100])
def test_plans_are_made_from_what_it_writes(
    nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this_is(nvml, monkeypatch)
    lab = tmp_path / "lab.yaml"
    written = vdsgen("scan", "--out", lab)
    assert (written.exit_code, written.stdout) == (0, "")
    assert vdsgen("scan").stdout == lab.read_text()
    planned = vdsgen("plan", EXPERIMENT, "--lab", lab, "--json")
    assert planned.exit_code == 0, planned.stderr
    assert json.loads(planned.stdout)["pool"] == open_lab(lab).pools[0].name


def test_a_file_that_is_there_stays_unless_force_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this_is(FOUR_4090, monkeypatch)
    lab = tmp_path / "lab.yaml"
    lab.write_text("mine")
    refused = vdsgen("scan", "--out", lab)
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert lab.read_text() == "mine"
    assert vdsgen("scan", "--out", lab, "--force").exit_code == 0
    assert open_lab(lab).pools[0].gpu == "rtx-4090"


def test_json_is_one_document_with_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    this_is(FOUR_4090, monkeypatch)
    document = json.loads(vdsgen("scan", "--json").stdout)
    assert document["lab"]["pools"][0]["gpu"] == "rtx-4090"
    assert document["written"] is None and document["missed"] == []
    assert document["answers"][0]["gpus"]["by"] == "nvml"


def test_a_machine_without_gpus_is_a_pool_of_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = answer_of(FakeNvml([])).model_dump(mode="json")
    empty["gpus"] = {**empty["gpus"], "by": "none", "problem": "nvidia-smi is not on the PATH"}
    answer = type(answer_of(FOUR_4090)).model_validate_json(json.dumps(empty))
    monkeypatch.setattr(scan, "this_machine", lambda: answer)
    printed = vdsgen("scan", "--out", tmp_path / "lab.yaml")
    assert printed.exit_code == 0 and "no GPU found: nvidia-smi is not on the PATH" in printed.stderr
    (pool,) = open_lab(tmp_path / "lab.yaml").pools
    assert (pool.gpu, pool.gpus_per_node, pool.cpu_cores) == ("cpu", 4, 64)


def test_hosts_that_are_not_written_set_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {"ada": Heard("ada", answer_of(FOUR_4090)), "bee": Heard("bee", failure="no route")}
    monkeypatch.setattr(scan, "ask_hosts", lambda hosts: [heard[host] for host in hosts])
    (tmp_path / "hosts").write_text("ada\nbee\n")
    result = vdsgen("scan", "--hosts", tmp_path / "hosts")
    assert result.exit_code == 1
    assert "hosts: [ada]" in result.stdout and "not written: bee: no route" in result.stderr
    assert vdsgen("scan", "--hosts", tmp_path / "none").exit_code == 2
    assert vdsgen("scan", "--together").exit_code == 2
