"""The batch script, and jobs of a real SLURM on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.launch.backends.slurm_here import missing_tools, running_slurm
from tests.launch.test_commands import job, machine
from tests.model.training import launch_command, render_tiny, train, write_clips
from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.slurm import commands
from vdsgen.render.render import FILES, files_of, render_plan
from vdsgen.spec.lab import Pool
from vdsgen.spec.launching import Slurm
from vdsgen.spec.rendered import read_rendered

SKIP = missing_tools()
here = pytest.mark.skipif(SKIP is not None and "VDSGEN_REQUIRE_ALL" not in os.environ, reason=str(SKIP))


def script(slurm: Slurm | None = None, **pool: Any) -> str:
    chosen = pool_of(2, 4, launcher="slurm", slurm=slurm, **pool)
    return render_plan(plan_of(data=4, pool=chosen), small_experiment())["train.sbatch"].decode()


def options(text: str) -> list[str]:
    return re.findall(r"^#SBATCH --(.*)$", text, flags=re.MULTILINE)


def test_the_job_asks_for_what_the_plan_uses() -> None:
    text = script(
        Slurm(
            partition="a100", account="video", time="1-12:00:00", notice_seconds=300, memory_gib_per_node=96.0
        ),
        cpu_cores=32,
    )
    assert options(text) == [
        "job-name=small", "nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=8", "mem=98304M",
        "partition=a100", "account=video", "time=1-12:00:00",
        "requeue", "open-mode=append", "signal=B:USR1@300",
    ]  # fmt: skip
    assert "--kill-on-bad-exit=1 --cpus-per-task=8 \\\n    python -m vdsgen.launch.rank --slurm" in text
    assert "DS_ACCELERATOR" not in text


def test_what_the_lab_leaves_out_is_slurms_choice() -> None:
    assert options(script()) == [
        "job-name=small", "nodes=2", "ntasks-per-node=4", "gpus-per-node=4",
        "requeue", "open-mode=append", "signal=B:USR1@120",
    ]  # fmt: skip
    on_processors = script(gpu="cpu")
    assert not any(option.startswith("gpus") for option in options(on_processors))
    assert "export DS_ACCELERATOR=cpu" in on_processors


def test_only_labs_that_ask_for_it_get_a_script() -> None:
    assert files_of(plan_of()) == FILES
    assert "launcher" not in pool_of(1, 4).model_dump()
    plan = plan_of(pool=pool_of(1, 4, launcher="slurm"))
    assert files_of(plan) == (*FILES, "train.sbatch")
    first, second = (render_plan(plan, small_experiment()) for _ in range(2))
    assert first == second
    assert plan.model_dump(mode="json")["inputs"]["pool"]["launcher"] == "slurm"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"launcher": "slurm", "hosts": ("a", "b")}, "hosts stands beside `launcher: slurm`"),
        ({"launcher": "slurm", "free_gpus": (0, 1)}, "free_gpus stands beside"),
        ({"slurm": Slurm(partition="x")}, "stands without `launcher: slurm`"),
    ],
)
def test_pools_that_contradict_themselves_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool_of(2, 4, **keys)


@pytest.mark.parametrize("word", ["a b", "x\n#SBATCH --uid=0", "$(id)", "-x", "a;b"])
def test_no_key_can_say_more_than_it_should(word: str) -> None:
    for key in ("partition", "account", "qos", "constraint", "time"):
        with pytest.raises(ValueError, match="pattern"):
            Slurm.model_validate({key: word})


def test_the_script_is_submitted_with_the_runs_arguments() -> None:
    (command,) = commands(job(steps=20, measure=True), machine(), "id")
    assert command.argv == (
        "sbatch", "--parsable", "--output=/lab/runs/1/logs/slurm-%j.log",
        "/lab/rendered/train.sbatch", "/lab/rendered", "/lab/runs/1", "--steps", "20", "--measure",
    )  # fmt: skip
    assert command.environment["PATH"] == "/opt/venv/bin:/usr/bin:/bin"
    assert "OMP_NUM_THREADS" not in command.environment
    with pytest.raises(VdsgenError, match="has a %, which sbatch would replace"):
        commands(job(output=Path("/lab/%j")), machine(), "id")


def test_directories_without_a_script_are_refused(tmp_path: Path) -> None:
    plan = render_tiny(tmp_path / "plan", write_clips(tmp_path / "clips", count=1))
    answer = CliRunner().invoke(
        cli, ["launch", str(plan), "--output", str(tmp_path / "run"), "--launcher", "slurm"]
    )
    assert answer.exit_code == 2
    assert "has no train.sbatch" in answer.stderr
    assert "`launcher: slurm`" in answer.stderr


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with running_slurm(tmp_path_factory.mktemp("slurm") / "s", preempting=True) as environment:
        yield {
            **environment,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "DS_ACCELERATOR": "cpu",
        }


def render_for_slurm(directory: Path, videos: Path, **training: Any) -> Path:
    """Two processor ranks."""
    render_tiny(directory, videos, pipeline=2, data=1, training=training)
    rendered = read_rendered(directory)
    values = rendered.plan.inputs.pool.model_dump() | {"launcher": "slurm"}
    inputs = rendered.plan.inputs.model_copy(update={"pool": Pool.model_validate(values)})
    files = render_plan(rendered.plan.model_copy(update={"inputs": inputs}), rendered.experiment)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def command(environment: Mapping[str, str], *words: str) -> str:
    return subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout


def submitted(environment: Mapping[str, str], plan: Path, run: Path, *arguments: str) -> str:
    shown = command(environment, *launch_command(plan, run, *arguments))
    found = re.match(r"Submitted job (\d+): 2 ranks", shown)
    assert found, shown
    return found[1]


def state(environment: Mapping[str, str], number: str) -> dict[str, str]:
    shown = command(environment, "scontrol", "show", "job", number)
    return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)


def wait(reached: Callable[[], bool], run: Path, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        logs = [path.read_text()[-3000:] for path in sorted((run / "logs").glob("*.log"))]
        assert time.monotonic() < deadline, logs
        time.sleep(0.3)


def losses(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line)["loss"] for line in lines]


@here
@pytest.mark.slow
def test_a_job_near_its_limit_and_a_preempted_one_go_on_from_their_checkpoints(
    tmp_path: Path, slurm: Mapping[str, str]
) -> None:
    clips = write_clips(tmp_path / "clips")
    plan, run = render_for_slurm(tmp_path / "plan dir", clips, steps=100_000), tmp_path / "long run"
    number = submitted(slurm, plan, run)
    wait(lambda: any(run.glob("checkpoints/*/complete.json")), run)
    # What SLURM sends to the script when the limit is near.
    command(slurm, "scancel", "--signal=USR1", "--batch", number)
    wait(lambda: state(slurm, number)["Restarts"] == "1" and "from step" in log_of_start(run, 1), run)
    first = re.search(r"from step (\d+) to", log_of_start(run, 1))
    assert first and int(first[1]) > 3
    first_start = sorted((run / "logs").glob("*_rank0.log"))[0].read_text()
    assert f"Stopped after step {int(first[1]) - 1}, as was asked." in first_start, (
        "it was ended, and lost steps"
    )
    urgent = ("--partition=urgent", "--ntasks=4", f"--output={tmp_path}/urgent.log", "--wrap=sleep 1")
    command(slurm, "sbatch", *urgent)
    wait(lambda: state(slurm, number)["Restarts"] == "2" and "from step" in log_of_start(run, 2), run)
    second, third = (log_of_start(run, start) for start in (1, 2))
    stopped = re.search(r"Stopped after step (\d+), because of SIGTERM", second)
    assert stopped, "it was ended, and lost steps"
    assert f"from step {int(stopped[1]) + 1} to" in third
    began = time.monotonic()
    command(slurm, "scancel", number)
    wait(lambda: state(slurm, number)["JobState"] == "CANCELLED", run)
    assert time.monotonic() - began < 30
    logs = {path.name.partition("_")[2] for path in (run / "logs").glob("*_rank*")}
    assert logs == {"rank0.log", "rank1.log"}
    assert train(plan, tmp_path / "other", steps=3).code == 0
    assert losses(run)[:3] == losses(tmp_path / "other")


def log_of_start(run: Path, start: int) -> str:
    """Rank 0's, of the first start (0) or a later one; empty while there is none."""
    logs = sorted((run / "logs").glob("*_rank0.log"))
    return logs[start].read_text() if len(logs) > start else ""


@here
@pytest.mark.parametrize(("code", "ended"), [(0, "COMPLETED"), (7, "FAILED")])
def test_a_job_ends_as_its_ranks_do(tmp_path: Path, slurm: Mapping[str, str], code: int, ended: str) -> None:
    """With a program in the interpreter's place: the script's own words, without torch."""
    plan = render_for_slurm(tmp_path / "plan", write_clips(tmp_path / "clips", count=1))
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        f'echo "$SLURM_PROCID $MASTER_ADDR $MASTER_PORT $OMP_NUM_THREADS $*" >{tmp_path}/rank$SLURM_PROCID\n'
        f"if [ $SLURM_PROCID = 1 ]; then sleep 1; exit {code}; fi\nsleep {60 if code else 1}\n"
    )
    fake.chmod(0o755)
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    number = command(
        {**slurm, "PATH": f"{fake.parent}:{slurm['PATH']}"},
        "sbatch", "--parsable", f"--output={run}/logs/slurm-%j.log",
        str(plan / "train.sbatch"), str(plan), str(run), "--steps", "3",
    ).strip()  # fmt: skip
    wait(lambda: state(slurm, number)["JobState"] == ended, run, 40)
    # A job has the highest code of all its ranks, those included that SLURM ended because of the first.
    assert state(slurm, number)["ExitCode"] == ("143:0" if code else "0:0")
    said = (run / "logs" / f"slurm-{number}.log").read_text()
    assert (f"task 1: Exited with exit code {code}" in said) == bool(code)
    for rank in (0, 1):
        assert (tmp_path / f"rank{rank}").read_text() == (
            f"{rank} {os.uname().nodename} {20000 + int(number) % 10000} 1 -m vdsgen.launch.rank --slurm "
            f"{run}/logs --plan-dir {plan} --output {run} --save-on-sigterm --steps 3\n"
        )
