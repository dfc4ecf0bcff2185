"""A run fills its cache by all ranks, and trains on it as it would on videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clips import numbered, write_frames
from tests.model.training import Finished, render_tiny, train, write_clips
from vdsgen.model.metrics import read_metrics
from vdsgen.model.validation import read_validation
from vdsgen.spec.data import ClipSize, LatentCache
from vdsgen.spec.training import Validation

pytestmark = pytest.mark.slow

# All windows of clips of 8 frames, at both sizes.
CACHE: dict[str, Any] = {"windows_per_clip": 5, "dtype": "fp32"}
BUCKETS = (ClipSize(frames=8, height=8, width=32),)


def run(folder: Path, name: str, **data: Any) -> Finished:
    """Two pipeline stages; each step's two micro-batches are of sizes of their own."""
    changes = {"bucket_every": "micro_batch", **data}
    validation = Validation(videos=str(folder / "held out"), every_steps=4, quantiles=(0.3, 0.7))
    training = {"global_batch_size": 2, "steps": 4, "validation": validation}
    plan = folder / f"plan {name}"
    render_tiny(plan, folder / "clips", data=1, training=training, buckets=BUCKETS, data_changes=changes)
    finished = train(plan, folder / name)
    assert finished.code == 0, finished.shown
    return finished


def test_ranks_fill_the_cache_and_losses_are_those_without_one(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    for number in range(2):
        write_frames(tmp_path / "held out" / f"{number}.mp4", numbered(12, first=20 * number))
    run(tmp_path, "videos")
    cache = LatentCache(folder=str(tmp_path / "cache"), **CACHE)
    shown = run(tmp_path, "cached", cache=cache).shown
    assert (
        f"Encoding 20 windows of clips and 0 captions into {tmp_path / 'cache'} (0 of 20 are there)." in shown
    ), "5 windows and 1 of each of 3 clips at the two sizes, and the middle of each of 2 held-out clips"
    assert "Encoded 20, " in shown
    assert "bucket 4 x 16 x 16: 3 clips, 1 of 2 micro-batches" in shown
    plain, cached = read_metrics(tmp_path / "videos"), read_metrics(tmp_path / "cached")
    assert [step["loss"] for step in cached] == [step["loss"] for step in plain]
    held_out = [read_validation(tmp_path / name) for name in ("videos", "cached")]
    assert [[line["loss_by_quantile"] for line in lines] for lines in held_out[:1] * 2] == [
        [line["loss_by_quantile"] for line in lines] for lines in held_out
    ]
    assert [line["step"] for line in held_out[1]] == [0, 4]
    assert {step["bucket"] for step in plain} == {"4 x 16 x 16 (1), 8 x 8 x 32 (1)"}
    for step in (*plain, *cached):
        assert sum(step["data_wait"].values()) == pytest.approx(step["data_seconds"], abs=1e-5)
        # Both stages read each sample.
        assert step["loader"]["samples"] == 4
    assert cached[-1]["loader"]["read_bytes"] > 0
    summary = json.loads((tmp_path / "cached" / "summary.json").read_text())
    assert set(summary["measured"]["data_wait"]["shares"]) == {"disk", "decoding", "encoding", "hand-over"}
    assert summary["measured"]["cached"] and Path(summary["files"]["sample_video"]).is_file()
    assert not list((tmp_path / "cache" / "progress").glob("*"))


def test_a_folder_that_is_no_cache_ends_the_run_with_code_2(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    cache = LatentCache(folder=str(tmp_path / "clips"), dtype="fp32")
    plan = render_tiny(tmp_path / "plan", tmp_path / "clips", data=1, data_changes={"cache": cache})
    finished = train(plan, tmp_path / "run")
    assert finished.code == 2
    assert "is no cache of latents, and not empty" in finished.shown and "Traceback" not in finished.shown
