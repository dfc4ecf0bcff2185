"""Room for what a run writes, and what it reads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.launch.hosts.made import disk, expected, facts, planned, stage
from vdsgen.launch.hosts.facts import InputState
from vdsgen.launch.hosts.storage import compare_disks, compare_inputs
from vdsgen.units import GIB


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"output": disk(70 * GIB)}, "error",
         "/lab/runs has 70.0 GiB free, 4 checkpoints of 20.0 GiB need 80.0 GiB"),
        ({"output": disk(85 * GIB)}, "warning", "has 85.0 GiB free"),
        ({"output": disk(900 * GIB, writable=False)}, "error", "/lab/runs cannot be written to"),
        ({"output": disk(900 * GIB, free_files=100)}, "error",
         "room for 100 more files (inodes), the run writes 244"),
    ],
)  # fmt: skip
def test_a_disk_that_is_too_small_is_named(changes: dict[str, Any], severity: str, words: str) -> None:
    (found,) = compare_disks(expected(), planned(), facts(**changes))
    assert found.severity == severity
    assert words in found.message


def test_a_disk_with_room_has_no_finding() -> None:
    assert list(compare_disks(expected(), planned(), facts())) == []
    assert list(compare_disks(expected(checkpoints=0), planned(), facts(output=disk(GIB)))) == []


def test_flash_for_offload_is_looked_at_on_every_host() -> None:
    host = planned(ranks=2, stage=stage(nvme_bytes=50 * GIB))
    offloads = expected(host, nvme="/flash")
    gone = facts(nvme_problem="No such file or directory")
    for told, words in (
        (gone, "/flash, where offload goes: No such file or directory"),
        (facts(nvme=disk(90 * GIB)), "/flash has 90.0 GiB free, offload needs 100 GiB"),
        (facts(nvme=disk(900 * GIB, writable=False)), "cannot be written to"),
    ):
        (found,) = compare_disks(offloads, host, told)
        assert (found.severity, words in found.message) == ("error", True)
    assert list(compare_disks(offloads, host, facts(nvme=disk(900 * GIB)))) == []


def test_inputs_are_there_and_the_same() -> None:
    paths = {"data.videos": "clips", "training.start_from": "weights", "model.weights": "more"}
    states = {
        "data.videos": InputState(found=False, problem="Permission denied"),
        "training.start_from": InputState(found=True, differing=("a.safetensors",)),
        "model.weights": InputState(found=True),
    }
    found = compare_inputs(paths, planned(), facts(inputs=states))
    assert [one.message for one in found] == [
        "data.videos: clips: Permission denied",
        "training.start_from: weights: 1 of the files looked at are not as here: a.safetensors",
    ]
