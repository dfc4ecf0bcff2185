"""Micro-batches: the same for any number of workers, exact on resuming, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.clips import cut_off, write_numbered
from tests.model.data.test_samples import source_of
from vdsgen.errors import VdsgenError
from vdsgen.model.data.loader import batches_for
from vdsgen.model.data.order import Share, SizeOrder
from vdsgen.model.data.samples import MicroBatch
from vdsgen.spec.data import ClipSize

ALONE = Share(0, 1, 2, 2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("run/a.mp4", "run/b.mp4", "walk/c.mp4"):
        write_numbered(folder / name, 30, rate=10)
    return folder


def batches_of(folder: Path, share: Share, steps: range, **changes: object) -> list[MicroBatch]:
    source = source_of(folder, condition="class", dropout=0.2, **changes)
    with batches_for(source, share, start_step=steps.start, stop_step=steps.stop) as batches:
        return list(batches)


def assert_same(first: list[MicroBatch], second: list[MicroBatch]) -> None:
    assert len(first) == len(second)
    for (inputs, target), (other_inputs, other_target) in zip(first, second, strict=True):
        assert len(inputs) == len(other_inputs)
        for tensor, other in zip((*inputs, target), (*other_inputs, other_target), strict=True):
            assert torch.equal(tensor, other)


def test_micro_batches_are_what_the_engines_take(clips: Path) -> None:
    micro_batches = batches_of(clips, ALONE, range(2))
    assert len(micro_batches) == 4
    (noised, timestep, condition), target = micro_batches[0]
    assert noised.shape == target.shape == (2, 48, 8, 8, 8)
    assert timestep.shape == condition.shape == (2,)
    assert (noised.dtype, timestep.dtype, condition.dtype) == (torch.float32, torch.float32, torch.int64)
    with batches_for(source_of(clips), ALONE) as batches:
        assert len(next(batches)[0]) == 2, "without a condition there are two inputs"


def test_the_number_of_workers_changes_nothing(clips: Path) -> None:
    alone = batches_of(clips, ALONE, range(3), workers=0)
    assert_same(batches_of(clips, ALONE, range(3), workers=1, prefetch=1), alone)
    assert_same(batches_of(clips, ALONE, range(3), workers=2, prefetch=3), alone)


def test_a_resumed_run_continues_exactly(clips: Path) -> None:
    whole = batches_of(clips, ALONE, range(5))
    assert_same(batches_of(clips, ALONE, range(3, 5)), whole[6:])


def test_every_layout_trains_on_the_same_global_batch(clips: Path) -> None:
    def global_batch(shares: list[Share]) -> list[torch.Tensor]:
        rows = []
        for share in shares:
            for (noised, _, _), target in batches_of(clips, share, range(2, 3)):
                rows += list(torch.stack((noised, target), dim=1))
        return sorted(rows, key=lambda row: float(row.double().sum()))

    expected = global_batch([Share(0, 1, 8, 1)])
    for size, micro, accumulation in ((2, 2, 2), (4, 1, 2), (1, 1, 8)):
        found = global_batch([Share(rank, size, micro, accumulation) for rank in range(size)])
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_every_step_is_of_one_size_for_any_layout_number_of_workers_and_place_to_resume(clips: Path) -> None:
    buckets = (ClipSize(frames=4, height=16, width=64), ClipSize(frames=20, height=32, width=16))
    shapes = [(48, 8, 8, 8), (48, 4, 4, 16), (48, 20, 8, 4)]
    whole = batches_of(clips, ALONE, range(6), workers=0, buckets=buckets)
    for index, (inputs, target) in enumerate(whole):
        assert inputs[0].shape == target.shape == (2, *shapes[SizeOrder(0, (1, 1, 1)).size_of(index // 2)])
    assert_same(batches_of(clips, ALONE, range(4, 6), workers=2, buckets=buckets), whole[8:])
    shared = [batches_of(clips, Share(rank, 2, 2, 1), range(6), buckets=buckets) for rank in range(2)]
    assert_same([batch for step in zip(*shared, strict=True) for batch in step], whole)


def test_the_time_that_the_consumer_waits_is_counted(clips: Path) -> None:
    with batches_for(source_of(clips), ALONE) as batches:
        assert batches.waiting.seconds == 0
        began = time.perf_counter()
        next(batches)
        elapsed = time.perf_counter() - began
        first = batches.waiting.seconds
        time.sleep(0.05)
        assert batches.waiting.seconds == first, "time between batches is the consumer's own"
    assert 0 < first <= elapsed


def test_closing_ends_the_iterator(clips: Path) -> None:
    batches = batches_for(source_of(clips, workers=1), ALONE)
    next(batches)
    batches.close()
    assert list(batches) == []


def test_the_global_generator_is_left_alone(clips: Path) -> None:
    before = torch.get_rng_state()
    batches_of(clips, ALONE, range(1), workers=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_that_break_are_named_once_and_counted(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_numbered(tmp_path / name, 30, rate=10)
    source = source_of(tmp_path, workers=workers)
    cut_off(tmp_path / "b.mp4", 0.2)
    with batches_for(source, ALONE, stop_step=3) as batches:
        assert len(list(batches)) == 6
    assert batches.skipped == {"b.mp4": 4}  # 12 samples of 3 clips
    assert caplog.text.count("skipped b.mp4: ") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_has_gone_is_an_error_without_a_traceback_in_it(tmp_path: Path, workers: int) -> None:
    write_numbered(tmp_path / "a.mp4", 30, rate=10)
    source = source_of(tmp_path, workers=workers)
    (tmp_path / "a.mp4").unlink()
    with (
        batches_for(source, ALONE) as batches,
        pytest.raises(VdsgenError, match="none of 1 clips in a row") as caught,
    ):
        next(batches)
    assert "Traceback" not in str(caught.value) and caught.value.remedy


_PROGRAM = """
import os, sys, time, multiprocessing
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.model.data.test_loader import ALONE, source_of
from vdsgen.model.data.loader import batches_for
if __name__ == "__main__":
    batches = batches_for(source_of(Path({clips!r}), workers=2), ALONE)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    {then}
"""


def start(clips: Path, then: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process in a session of its own that has two loader workers, and their process ids."""
    program = _PROGRAM.format(root=str(Path(__file__).parents[3]), clips=str(clips), then=then)
    script = clips / f"{then.split('(')[0]}.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def session_of(process: subprocess.Popen[str]) -> list[str]:
    """Living processes of the session that `process` began."""
    living = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            living.append(status.parent.name)
    return living


@pytest.mark.slow
def test_a_killed_training_process_leaves_no_loader_process_behind(clips: Path) -> None:
    process, workers = start(clips, "time.sleep(600)")
    try:
        assert len(workers) == 2 and len(session_of(process)) >= 4, "fork server and workers are running"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while session_of(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert session_of(process) == []
    finally:
        _end_session(process)


@pytest.mark.slow
def test_a_killed_loader_process_ends_training_with_a_reason(clips: Path) -> None:
    process, workers = start(clips, "list(batches)")
    try:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "VdsgenError: a loader process ended unexpectedly" in errors
        assert "data.workers: 0 decodes in the training process" in errors
    finally:
        _end_session(process)


def _end_session(process: subprocess.Popen[str]) -> None:
    for pid in session_of(process):
        os.kill(int(pid), signal.SIGKILL)
    process.communicate()
