"""Each in a process of its own: in one with a past, blocks land in what it has freed before."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable

import pytest
import torch

from vdsgen.model.memory import EXACT_STEPS, PeakMemory

MIB = 2**20
SLACK_BYTES = 8 * MIB


def in_a_new_process(check: Callable[[], None]) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(check,))
    process.start()
    process.join()
    assert process.exitcode == 0, "its traceback is in what the test printed"


def _run(check: Callable[[], None]) -> None:
    # torch starts its threads, with their stacks, at the first large operation.
    torch.ones(MIB).sin().sum()
    check()


def tensors_are_counted_and_what_python_holds_is_not() -> None:
    memory = PeakMemory()
    model = torch.ones(64 * MIB // 4)
    ballast = [bytearray(100_000) for _ in range(300)]
    memory.training_begins()
    activations = torch.ones(128 * MIB // 4)
    del activations
    gc.collect()
    assert memory.take() == pytest.approx((64 + 128) * MIB, abs=SLACK_BYTES)
    assert memory.take() == pytest.approx(64 * MIB, abs=SLACK_BYTES), "each step has its own peak"
    later = torch.ones(32 * MIB // 4)
    assert memory.take() == pytest.approx((64 + 32) * MIB, abs=SLACK_BYTES)
    assert len(ballast) == 300
    assert model.numel() > later.numel()


def holes_that_freed_tensors_leave_are_not_counted_in_the_exact_steps() -> None:
    memory = PeakMemory()
    memory.training_begins()
    kept = []
    for _ in range(200):
        kept.append(torch.ones(MIB // 8))
        torch.ones(MIB // 2)
    assert memory.take() == pytest.approx(100 * MIB, abs=SLACK_BYTES)
    del kept[::2]
    assert EXACT_STEPS == 2
    before = memory.take()
    assert before == pytest.approx(100 * MIB, abs=SLACK_BYTES), "the peak was before they were freed"
    assert memory.take() == pytest.approx(50 * MIB, abs=SLACK_BYTES)


@pytest.mark.parametrize(
    "check",
    [
        tensors_are_counted_and_what_python_holds_is_not,
        holes_that_freed_tensors_leave_are_not_counted_in_the_exact_steps,
    ],
)
def test_peak_memory(check: Callable[[], None]) -> None:
    in_a_new_process(check)
