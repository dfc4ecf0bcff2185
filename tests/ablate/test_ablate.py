"""The whole way: real plans on real ranks, a plan that fails, and a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.model.training import write_clips
from vdsgen.ablate.records import Result, RunEnded, RunStarted
from vdsgen.ablate.state import AblationDirectory
from vdsgen.launch.watch import processes_of
from vdsgen.spec.calibration import Calibration

pytestmark = pytest.mark.slow

EXPERIMENT = """\
name: tiny
model:
  family: vdt
  in_channels: 48
  patch_size: 2
  hidden_size: 16
  depth: 4
  heads: 2
  mlp_hidden_size: 32
  condition: class
  classes: 8
data:
  videos: clips
  frames: 4
  height: 16
  width: 16
  latents: {codec: space_to_depth, factor: 4}
  workers: 0
training:
  global_batch_size: 4
  steps: 6
"""
LAB = """\
pools:
  - {name: one, gpu: cpu, gpus_per_node: 1, intra_node: shared-memory, host_memory_gib: 8}
"""
BROKEN = ("--plans", "broken")
GRID = "grid:micro_batch_size=2,4;activation_checkpoint_interval=0"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_clips(folder / "clips")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    (folder / "lab.yaml").write_text(LAB)
    return folder


def command(*more: str, out: str = "out") -> list[str]:
    given = ["tiny.yaml", "--lab", "lab.yaml", "--plans", GRID, "--out", out]
    return [sys.executable, "-m", "vdsgen", "ablate", *given, "--steps", "2", "--interleave", "1", *more]


def break_a_plan(lab: Path) -> None:
    """A rendered directory whose optimizer no engine knows."""
    arguments = ["generate", "tiny.yaml", "--lab", "lab.yaml", "--out", "broken"]
    subprocess.run([sys.executable, "-m", "vdsgen", *arguments], cwd=lab, env=ENVIRONMENT, check=True)
    path = lab / "broken" / "ds_config.json"
    config = json.loads(path.read_text())
    config["optimizer"]["type"] = "Nonsense"
    path.write_text(json.dumps(config))


def wait_for_a_step(directory: AblationDirectory, process: subprocess.Popen[bytes]) -> RunStarted:
    deadline = time.monotonic() + 240
    while not list(directory.path.glob("runs/*/round-1/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, "the first run does not get on"
        time.sleep(0.05)
    started = directory.journal()[-1]
    assert isinstance(started, RunStarted)
    return started


def test_killed_and_given_again_it_measures_every_plan_once(lab: Path) -> None:
    break_a_plan(lab)
    directory = AblationDirectory(lab / "out")
    process = subprocess.Popen(command(*BROKEN), cwd=lab, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    started = wait_for_a_step(directory, process)
    process.send_signal(signal.SIGKILL)
    process.wait()

    again = subprocess.run(
        command(*BROKEN, "--json"), cwd=lab, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1, again.stderr  # one plan failed
    assert processes_of(started.launch_id) == {}
    journal = directory.journal()
    ended = [line for line in journal if isinstance(line, RunEnded)]
    assert len(ended) == 3 == len({line.plan for line in ended})
    assert len(journal) == 2 * 3 + 1, "the killed run started once more than it ended"

    report = json.loads(again.stdout)
    assert len(report["ranked"]) == 2
    assert [one["plan"]["name"] for one in report["not_measured"]] == ["broken"]
    assert "Nonsense" in report["not_measured"][0]["error"]
    results = [Result.model_validate_json(line) for line in directory.results.read_text().splitlines()]
    assert [result.status for result in results] == ["ok", "ok", "failed"]
    for result in results[:2]:
        assert result.measured is not None
        assert result.measured.step_seconds > 0
        assert len(result.measured.peak_memory_bytes_by_stage) == 1
        run = directory.run(result.plan.name, 1)
        left = {path.name for path in run.iterdir()}
        assert {"metrics.jsonl", "summary.json", "run.json"} <= left
        assert not left & {"checkpoints", "samples", "loss.png"}, "only what is measured is written"
        metrics = (run / "metrics.jsonl").read_text().splitlines()
        assert len(metrics) == 2 + 2, "two steps to warm up, two that count"

    factors = report["fit"]["factors"]
    calibration = lab / "out" / "calibration.yaml"
    if report["fit"]["worth_using"]:
        import yaml

        loaded = Calibration.model_validate(yaml.safe_load(calibration.read_text()))
        assert loaded.step_factors is not None
        assert loaded.step_factors.compute_factor == factors["compute_factor"]

    # Nothing is left to run: neither clips nor time are needed for the same answer.
    (lab / "clips").rename(lab / "elsewhere")
    finished = subprocess.run(
        command(*BROKEN, "--json"), cwd=lab, env=ENVIRONMENT, capture_output=True, check=False
    )
    (lab / "elsewhere").rename(lab / "clips")
    assert (finished.returncode, json.loads(finished.stdout)) == (1, report)

    changed = subprocess.run(
        command(*BROKEN, "--set", "training.seed=1"),
        cwd=lab,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert changed.returncode == 2
    assert "the experiment was changed" in changed.stderr


def test_control_c_keeps_what_has_ended(lab: Path) -> None:
    directory = AblationDirectory(lab / "stopped")
    process = subprocess.Popen(
        command(out="stopped"),
        cwd=lab,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        # Tests may run where control-C is ignored, as in the background of a shell; so it would be then.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    started = wait_for_a_step(directory, process)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the same command continues" in shown
    assert processes_of(started.launch_id) == {}
    assert not [line for line in directory.journal() if isinstance(line, RunEnded)]
