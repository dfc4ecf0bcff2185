"""The whole way: `vdsgen launch`, DeepSpeed's runner, four ranks on this processor."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from tests.model.training import (
    FRAMES,
    SIZE,
    Finished,
    launch,
    launch_command,
    render_tiny,
    train,
    write_clips,
)
from vdsgen.errors import VdsgenError
from vdsgen.launch.watch import processes_of
from vdsgen.model.data.held_out import hold_out
from vdsgen.model.data.index import scan
from vdsgen.model.data.samples import source_for
from vdsgen.model.export.export import export
from vdsgen.model.folder import load_model
from vdsgen.model.metrics import read_metrics
from vdsgen.model.validation import Rows, batches_of, held_out_of, read_validation
from vdsgen.runs.traces import read_trace
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.data import ClipSize
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.rendered import read_rendered
from vdsgen.spec.training import Sampling, Validation

pytestmark = pytest.mark.slow

STEPS = 8
KEYS = {
    "step", "loss", "grad_norm", "loss_scale", "learning_rate", "step_seconds", "data_seconds",
    "samples_per_second", "peak_memory_bytes",
}  # fmt: skip
NUMERICS = ("step", "loss", "grad_norm", "loss_scale", "learning_rate")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, one of them broken, and a directory rendered for 2 pipeline x 2 data."""
    folder = tmp_path_factory.mktemp("lab with 'quotes' $(touch hacked)")
    write_clips(folder / "clips")
    (folder / "clips" / "broken.mp4").write_bytes(b"no video")
    held_out = write_clips(folder / "held out", count=2)
    training = {
        "steps": STEPS,
        "validation": Validation(every_steps=3, videos=str(held_out), quantiles=(0.2, 0.5, 0.8)),
        "sampling": Sampling(steps=3, guidance_scale=2.0, clips=3, every_steps=5),
    }
    render_tiny(folder / "plan", folder / "clips", training=training)
    render_tiny(folder / "one rank", folder / "clips", training=training, pipeline=1, data=1, accumulation=4)
    other_seed = training | {"seed": 1}
    render_tiny(
        folder / "another run", folder / "clips", training=other_seed, pipeline=1, data=1, accumulation=4
    )
    return folder


@pytest.fixture(scope="module")
def uninterrupted(lab: Path) -> Finished:
    return launch(lab / "plan", lab / "run", "--trace-steps", "2:3")


def numerics(run: Path) -> list[tuple[Any, ...]]:
    return [tuple(metrics[key] for key in NUMERICS) for metrics in read_metrics(run)]


def test_a_run_ends_well_and_shows_its_summary(lab: Path, uninterrupted: Finished) -> None:
    assert uninterrupted.code == 0, uninterrupted.shown
    shown = uninterrupted.shown
    assert "Starting 4 ranks: 2 pipeline x 2 data, ZeRO-1, fp32" in shown
    assert "skipped broken.mp4" in shown
    assert f"step {STEPS}/{STEPS}  loss " in shown
    assert "predicted" in shown and "measured" in shown
    assert "peak memory, stage 1" in shown
    assert "[vdsgen]" not in shown
    assert len(shown.splitlines()) < 60
    summary = json.loads((lab / "run" / "summary.json").read_text())
    for path in summary["files"].values():
        assert Path(path).exists()
        assert path in shown
    assert summary["steps"] == STEPS
    assert not summary["plan"]["edited"]
    assert not list(Path.cwd().glob("hacked"))


def test_every_step_has_its_metrics(lab: Path, uninterrupted: Finished) -> None:
    assert uninterrupted.code == 0
    metrics = read_metrics(lab / "run")
    assert [m["step"] for m in metrics] == list(range(1, STEPS + 1))
    for step in metrics:
        assert set(step) >= KEYS
        assert all(math.isfinite(step[key]) for key in KEYS - {"peak_memory_bytes"})
        assert len(step["peak_memory_bytes"]) == 4
        assert 0 <= step["data_seconds"] <= step["step_seconds"]
        assert step["samples_per_second"] == pytest.approx(4 / step["step_seconds"])
        assert step["learning_rate"] == 1e-3


def test_a_run_directory_is_complete(lab: Path, uninterrupted: Finished) -> None:
    assert uninterrupted.code == 0
    run = lab / "run"
    record = json.loads((run / "run.json").read_text())
    assert record["world_size"] == 4 == len(record["devices"])
    assert record["clips"]["skipped"] == 1
    assert set(record["versions"]) == {"vdsgen", "torch", "deepspeed", "python"}
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert any((run / "tensorboard").iterdir())
    assert len(list((run / "logs").glob("*_rank?.log"))) == 4
    complete, incomplete = read_checkpoints(run)
    assert [record.step for record in complete.values()] == [6, STEPS], "the last two are kept"
    assert not incomplete
    assert (run / "checkpoints" / "latest").read_text() == f"step-{STEPS:08d}"


def test_the_schedule_is_traced_as_it_was_run(lab: Path, uninterrupted: Finished) -> None:
    """Each instruction of each rank, by one clock: a message is over on both sides at about the same time."""
    folder = lab / "run" / "traces" / "step-00000002-to-00000003"
    assert f"Wrote the schedule of each rank into {folder}" in uninterrupted.shown
    assert [path.name for path in sorted(folder.iterdir())] == [f"rank_{rank:05d}.jsonl" for rank in range(4)]
    traced = read_trace(folder)
    assert [(rank.rank, rank.stage, rank.rank_in_stage) for rank in traced.ranks] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 0),
        (3, 1, 1),
    ]
    metrics = {line["step"]: line["step_seconds"] for line in read_metrics(lab / "run")}
    for rank in traced.ranks:
        assert [step.step for step in rank.steps] == [2, 3]
        for step in rank.steps:
            assert step.seconds <= metrics[step.step] * 1.001
            count = Counter(one.name for one in step.instructions)
            exchanged = ("SendActivation", "RecvGrad") if rank.stage == 0 else ("RecvActivation", "SendGrad")
            assert {name: count[name] for name in ("ForwardPass", "BackwardPass", *exchanged)} == {
                "ForwardPass": 2,
                "BackwardPass": 2,
                exchanged[0]: 2,
                exchanged[1]: 2,
            }
            assert count["OptimizerStep"] == 1
            assert sum(one.end - one.begin for one in step.activities) == pytest.approx(
                step.seconds, rel=1e-3
            )
    ends = [
        {
            one.micro_batch: step.began + one.end
            for one in step.instructions
            if one.name in ("SendActivation", "RecvActivation")
        }
        for step in (traced.ranks[0].steps[0], traced.ranks[2].steps[0])
    ]
    starts = {
        one.micro_batch: traced.ranks[0].steps[0].began + one.begin
        for one in traced.ranks[0].steps[0].instructions
        if one.name == "SendActivation"
    }
    for micro_batch in (0, 1):
        assert ends[1][micro_batch] > starts[micro_batch], "received before it was sent"


def test_held_out_losses_are_told_while_it_trains(lab: Path, uninterrupted: Finished) -> None:
    lines = read_validation(lab / "run")
    assert [line["step"] for line in lines] == [0, 3, 6, STEPS]
    for line in lines:
        assert line["weights"] == "trained" and line["clips"] == 2
        assert line["quantiles"] == [0.2, 0.5, 0.8] and line["timesteps"] == sorted(line["timesteps"])
        assert line["loss"] == pytest.approx(sum(line["loss_by_quantile"]) / 3)
        assert len(line["peak_memory_bytes"]) == 4
    assert len({line["loss"] for line in lines}) == 4
    summary = json.loads((lab / "run" / "summary.json").read_text())["validation"]["trained"]
    assert (summary["first"], summary["last"]) == (lines[0]["loss"], lines[-1]["loss"])
    assert f"step 3: held-out loss {lines[1]['loss']:.4f} (2 clips x 3 noise levels" in uninterrupted.shown
    assert f"Held-out loss: {lines[0]['loss']:.4f} -> {lines[-1]['loss']:.4f}" in uninterrupted.shown


def test_a_run_goes_on_in_another_layout(lab: Path, uninterrupted: Finished) -> None:
    """Four ranks were lost after step 6; one goes on, and its losses are theirs to fp32's rounding."""
    assert uninterrupted.code == 0
    straight, run = lab / "run", lab / "run of one"
    shutil.copytree(straight, run)
    shutil.rmtree(run / "checkpoints" / f"step-{STEPS:08d}")
    with pytest.raises(VdsgenError, match=r"training\.seed was 0, is 1"):
        train(lab / "another run", run, resume=True)
    half = run / "universal" / "step-00000006"
    half.mkdir(parents=True)
    (half / "zero").write_text("what a conversion that was killed has left")
    finished = train(lab / "one rank", run, resume=True)
    assert finished.code == 0, finished.shown
    assert "was written by 2 pipeline x 2 data, ZeRO-1" in finished.shown
    lines, theirs = numerics(run), numerics(straight)
    assert [line[0] for line in lines] == [line[0] for line in theirs]
    assert lines[:6] == theirs[:6]
    for mine, other in zip(lines, theirs, strict=True):
        assert mine[1:] == pytest.approx(other[1:], rel=3e-6)
    held_out = [[line["loss"] for line in read_validation(of)] for of in (run, straight)]
    assert held_out[0] == pytest.approx(held_out[1], rel=3e-6)
    record = json.loads((run / "run.json").read_text())
    assert [(start["from_step"], start["plan"]) for start in record["starts"]] == [
        (0, "plans/1"),
        (6, "plans/2"),
    ]
    assert (run / "plans" / "2" / "plan.json").read_bytes() == (lab / "one rank" / "plan.json").read_bytes()
    assert not (run / "universal").exists(), "the next checkpoint is saved"
    summary = json.loads((run / "summary.json").read_text())
    assert len(summary["measured"]["peak_memory_bytes_by_rank"]) == 1


def test_the_exported_model_has_the_last_held_out_loss(lab: Path, uninterrupted: Finished) -> None:
    """What a pipeline trained, in one process without the engine."""
    export(lab / "run", lab / "exported")
    experiment = read_rendered(lab / "plan").experiment
    assert isinstance(experiment.model, Vdt)
    training, held = hold_out(scan(experiment.data), experiment.data, experiment.training.validation)  # type: ignore[arg-type]
    held_out = held_out_of(experiment, held, source_for(experiment, training))
    model = load_model(lab / "exported", geometry_of(experiment.data, experiment.model))
    losses = []
    with torch.no_grad():
        for inputs, target in batches_of(held_out, Rows.of(held_out.samples, 0, 1, 1)):
            losses.append(float(model(inputs, target)))
    assert sum(losses) / len(losses) == pytest.approx(read_validation(lab / "run")[-1]["loss"], rel=1e-4)


def test_samples_are_written_on_the_way(lab: Path, uninterrupted: Finished) -> None:
    assert uninterrupted.code == 0
    samples = lab / "run" / "samples"
    assert sorted(path.stem for path in samples.glob("*.mp4")) == ["step-00000005", f"step-{STEPS:08d}"]
    early, late = ((samples / f"step-{step:08d}.mp4").read_bytes() for step in (5, STEPS))
    assert early != late


def test_the_sample_video_plays(lab: Path, uninterrupted: Finished) -> None:
    assert uninterrupted.code == 0
    with av.open(str(lab / "run" / "samples" / f"step-{STEPS:08d}.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # Three clips in two columns.
    assert [frame.shape for frame in frames] == [(2 * SIZE, 2 * SIZE, 3)] * FRAMES
    assert (lab / "run" / "samples" / f"step-{STEPS:08d}.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_rank_ends_the_job_and_it_resumes_to_the_same_losses(
    lab: Path, uninterrupted: Finished
) -> None:
    assert uninterrupted.code == 0
    run = lab / "killed"
    shown = lab / "killed.txt"
    with shown.open("wb") as stream:
        process = subprocess.Popen(
            launch_command(lab / "plan", run, "--steps", "10000"),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    rank, launch_id = wait_for_step(run, process, 4)
    os.kill(rank[2], signal.SIGKILL)
    killed = time.monotonic()
    code = process.wait(timeout=60)
    assert time.monotonic() - killed < 15
    assert code == 137
    assert f"rank 2 (process {rank[2]}) was killed by SIGKILL; the job was ended." in shown.read_text()
    assert processes_of(launch_id) == {}

    # As if the next save had been interrupted as well.
    last = list(read_checkpoints(run)[0])[-1]
    half = run / "checkpoints" / "step-00000999"
    half.mkdir()
    (half / "layer_00-model_states.pt").touch()
    assert int(last.name.removeprefix("step-")) < STEPS
    resumed = launch(lab / "plan", run, "--resume", "--steps", str(STEPS))
    assert resumed.code == 0, resumed.shown
    assert f"skipped: {half} is half written" in resumed.shown
    assert numerics(run) == numerics(lab / "run")
    losses = [[(line["step"], line["loss"]) for line in read_validation(one)] for one in (run, lab / "run")]
    assert losses[0] == losses[1]


def test_a_signal_saves_the_step_and_the_run_goes_on_from_it(lab: Path, uninterrupted: Finished) -> None:
    assert uninterrupted.code == 0
    run, shown = lab / "stopped", lab / "stopped.txt"
    with shown.open("wb") as stream:
        process = subprocess.Popen(
            launch_command(lab / "plan", run, "--steps", "10000"),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    wait_for_step(run, process, 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM, shown.read_text()
    done = len(read_metrics(run))
    assert list(read_checkpoints(run)[0])[-1].name == f"step-{done:08d}"
    assert f"Stopped after step {done}, as was asked." in shown.read_text()
    assert done < STEPS, "too late to go on"
    resumed = launch(lab / "plan", run, "--resume", "--steps", str(STEPS))
    assert resumed.code == 0, resumed.shown
    assert numerics(run) == numerics(lab / "run")


def wait_for_step(run: Path, process: subprocess.Popen[bytes], step: int) -> tuple[dict[int, int], str]:
    """The ranks' process ids and the launch's id, once `step` is in the metrics."""
    deadline = time.monotonic() + 280
    while len(read_metrics(run)) < step:
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environment = Path(f"/proc/{children[0]}/environ").read_bytes().decode()
    launch_id = next(
        word.partition("=")[2] for word in environment.split("\0") if word.startswith("VDSGEN_LAUNCH_ID=")
    )
    processes = processes_of(launch_id)
    ranks = {
        int(values["RANK"]): pid
        for pid, values in sorted(processes.items(), reverse=True)
        if "RANK" in values
    }
    assert sorted(ranks) == [0, 1, 2, 3]
    return ranks, launch_id


def one_rank(folder: Path, **training: Any) -> Path:
    return render_tiny(folder, folder.parent / "clips", pipeline=1, data=1, zero_stage=0, training=training)


def test_a_run_with_clips_of_several_sizes_tells_each_steps(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    buckets = (ClipSize(frames=8, height=8, width=32),)
    plan = render_tiny(
        tmp_path / "plan", tmp_path / "clips", data=1, training={"global_batch_size": 2}, buckets=buckets
    )
    finished = train(plan, tmp_path / "run")
    assert finished.code == 0, finished.shown
    metrics = read_metrics(tmp_path / "run")
    sizes = [step["bucket"] for step in metrics]
    for first in range(0, len(sizes), 2):
        assert sorted(sizes[first : first + 2]) == ["4 x 16 x 16", "8 x 8 x 32"]
    assert "resident memory of each rank in the first 4 steps" in finished.shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["measured"]["step_seconds"] == pytest.approx(
        sum(step["step_seconds"] for step in metrics[4:]) / 2
    )


def test_clips_that_are_all_broken_end_the_run_with_code_2(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"no video")
    finished = launch(one_rank(tmp_path / "plan", global_batch_size=2), tmp_path / "run")
    assert finished.code == 2, finished.shown
    assert "error: data.videos: none of the 1 videos" in finished.shown
    assert "Traceback" not in finished.shown


def test_a_loss_that_diverges_ends_the_run_with_code_4(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    from vdsgen.spec.optimization import AdamW

    plan = one_rank(
        tmp_path / "plan",
        global_batch_size=2,
        steps=40,
        optimizer=AdamW(learning_rate=1e14, weight_decay=1e9),
    )
    finished = launch(plan, tmp_path / "run")
    assert finished.code == 4, finished.shown
    assert "warning: divergence: step " in finished.shown
    assert "training has diverged" in finished.shown
    assert "Traceback" not in finished.shown
    assert (tmp_path / "run" / "loss.png").is_file()
    assert all(record.step < 40 for record in read_checkpoints(tmp_path / "run")[0].values())
