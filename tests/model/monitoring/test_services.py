"""Services that get a run's metrics have them when the run ends, which Python does not end with."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.model.training import render_tiny, train, write_clips
from vdsgen.model.metrics import read_metrics
from vdsgen.model.monitoring.events import handed_over
from vdsgen.spec.monitoring import Monitoring, WeightsAndBiases


def monitor_of(wandb: Any = None, comet: Any = None) -> Any:
    """DeepSpeed's MonitorMaster, as far as services go."""
    return SimpleNamespace(wandb_monitor=wandb, comet_monitor=comet)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the services' own packages are told."""
    calls: list[Any] = []
    wandb = SimpleNamespace(finish=lambda exit_code: calls.append(("wandb", exit_code)))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return calls


def test_services_are_told_that_a_run_ended_and_how(told: list[Any]) -> None:
    comet = SimpleNamespace(experiment=SimpleNamespace(end=lambda: told.append("comet")))
    with handed_over(monitor_of(object(), comet)):
        assert not told, "while it runs they are left alone"
    assert told == [("wandb", 0), "comet"]
    told.clear()
    with pytest.raises(ValueError, match="diverged"), handed_over(monitor_of(object())):
        raise ValueError("diverged")
    assert told == [("wandb", 1)]


def test_other_ranks_and_runs_without_services_tell_nobody(told: list[Any]) -> None:
    with handed_over(monitor_of()):
        pass
    with handed_over(monitor_of(comet=SimpleNamespace(experiment=None))):
        pass
    assert not told


def test_a_service_that_fails_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(exit_code: int) -> None:
        raise RuntimeError(f"no network for {exit_code}")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(finish=fails))
    with handed_over(monitor_of(object())):
        pass
    assert "metrics may be missing from the service that was asked for: no network for 0" in caplog.text


HEADER, BLOCK = 7, 32 * 1024
"""Bytes of an offline file of W&B's: `:W&B`, a magic number and a version; then LevelDB's log of blocks."""


def records(path: Path) -> Iterator[Any]:
    """What an offline run of W&B holds (github.com/google/leveldb, doc/log_format.md)."""
    from wandb.proto import wandb_internal_pb2

    data, at, record = path.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="the package wandb is not installed")
def test_an_offline_run_of_wandb_holds_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_clips(tmp_path / "clips")
    asked = Monitoring(wandb=WeightsAndBiases(project="demo", group="tiny"))
    plan = render_tiny(
        tmp_path / "plan", tmp_path / "clips", pipeline=1, data=1, training={"steps": 3, "monitoring": asked}
    )
    ended = train(plan, tmp_path / "run")
    assert ended.code == 0, ended.shown
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    found = list(records(file))
    (run,) = [one.run for one in found if one.WhichOneof("record_type") == "run"]
    assert (run.project, run.run_group) == ("demo", "tiny")
    history = {
        one.history.step.num: {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one.history.item
        }
        for one in found
        if one.WhichOneof("record_type") == "history"
    }
    metrics = read_metrics(tmp_path / "run")
    # At the number of clips seen, as DeepSpeed's own events are.
    assert list(history) == [2 * step["step"] for step in metrics]
    for step in metrics:
        row = history[2 * step["step"]]
        for key in ("loss", "grad_norm", "learning_rate", "step_seconds"):
            assert row[f"train/{key}"] == pytest.approx(step[key], rel=1e-6)
        # DeepSpeed's own; it tells the loss of pipelines alone.
        assert row["Train/Samples/lr"] == pytest.approx(1e-3)
        assert row["stage_0/forward_seconds"] > 0
    (ending,) = [one.exit for one in found if one.WhichOneof("record_type") == "exit"]
    assert ending.exit_code == 0
