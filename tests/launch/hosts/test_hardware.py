"""A host's devices, memory and limits beside what the plan takes them for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.launch.hosts.made import disk, expected, facts, gpu, planned, stage
from vdsgen.launch.hosts.facts import DeviceProcess
from vdsgen.launch.hosts.finding import Finding
from vdsgen.launch.hosts.hardware import compare_devices, compare_limits, compare_memory
from vdsgen.units import GIB

PYTHON = DeviceProcess(pid=17, name="python", memory_bytes=20 * GIB)


def devices(**changes: Any) -> list[Finding]:
    return list(compare_devices(planned(), facts(devices=(gpu(**changes),))))


def test_the_planned_gpu_has_no_finding() -> None:
    assert devices() == []


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"name": "NVIDIA GeForce RTX 3080"}, "error", "is no NVIDIA GeForce RTX 3090"),
        ({"total_bytes": 12 * GIB, "free_bytes": 12 * GIB}, "error",
         "has 12.0 GiB, the plan counts on 24.0 GiB"),
        ({"free_bytes": 3 * GIB, "processes": (PYTHON,)}, "error",
         "has 3.0 GiB free of 24.0 GiB by python (17, 20.0 GiB); rank 0 needs 16.2 GiB"),
        ({"free_bytes": 17 * GIB}, "warning", "has 17.0 GiB free of 24.0 GiB; rank 0 needs 16.2 GiB"),
        ({"processes": (DeviceProcess(pid=3, name="Xorg"),)}, "warning", "is used by Xorg (3)"),
        ({"uncorrected_errors": 2}, "error", "2 memory errors that ECC could not correct"),
        ({"refuses_processes": True}, "error", "compute mode: prohibited"),
        ({"slowed_by": ("heat (hardware)", "the power brake")}, "warning",
         "heat (hardware) and the power brake"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_gpu_is_named(changes: dict[str, Any], severity: str, words: str) -> None:
    (found,) = devices(**changes)
    assert found.severity == severity
    assert words in found.message
    assert found.message.startswith("GPU 0 (")
    assert found.remedy


def test_a_gpu_that_is_not_there_is_named() -> None:
    (found,) = compare_devices(planned(ranks=3), facts(devices=(gpu(0), gpu(1))))
    assert found.message == "the plan uses GPU 2, there are 2 GPUs (nvml)"
    found = next(compare_devices(planned(ranks=2), facts(devices=(), devices_from="none")))
    assert found.message == "the plan uses GPU 0, 1, there is no GPU"


def test_gpus_that_the_plan_does_not_use_may_be_anything() -> None:
    assert list(compare_devices(planned(), facts(devices=(gpu(0), gpu(1, name="T4", free_bytes=0))))) == []


def test_processor_ranks_want_the_hosts_memory() -> None:
    host = planned(ranks=2)
    on_cpu = expected(host, on_cpu=True)
    assert list(compare_memory(on_cpu, host, facts())) == []
    (found,) = compare_memory(on_cpu, host, facts(memory_available_bytes=30 * GIB))
    assert found.severity == "warning"
    assert found.message == "30.0 GiB of memory are free, its ranks need 32.5 GiB"


def test_offload_wants_the_hosts_memory() -> None:
    host = planned(ranks=2, stage=stage(host_bytes=70 * GIB))
    (found,) = compare_memory(expected(host), host, facts())
    assert found.severity == "error"
    assert found.message == "120 GiB of memory are free, offload and copies of checkpoints need 140 GiB"


def test_copies_of_checkpoints_want_it_too() -> None:
    ranks = tuple(replace(rank, copied_bytes=70 * GIB) for rank in planned(ranks=2).ranks)
    host = planned(ranks=2)
    (found,) = compare_memory(expected(host), replace(host, ranks=ranks), facts())
    assert "need 140 GiB" in found.message


def test_a_host_is_as_large_as_the_lab_file_says() -> None:
    small = facts(memory_total_bytes=64 * GIB, cores=4)
    found = [one.message for one in compare_memory(expected(), planned(), small)]
    assert found == [
        "has 64.0 GiB of memory, the lab file says 128 GiB",
        "a process may use 4 cores, the lab file says 16",
    ]
    # A kernel keeps some of what is in the box.
    assert list(compare_memory(expected(), planned(), facts(memory_total_bytes=125 * GIB))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"open_files": 256}, "may open 256 files, a rank of this job takes 400 or so"),
        ({"infiniband": True, "locked_memory_bytes": 65536}, "InfiniBand wants no limit"),
        ({"shared_memory": disk(64 * 2**20)}, "/dev/shm has 64 MiB free, loaders and ranks may take 128 MiB"),
    ],
)
def test_limits_that_are_too_low_are_told(changes: dict[str, Any], words: str) -> None:
    host = planned(ranks=2)
    (found,) = compare_limits(expected(host), host, facts(**changes))
    assert words in found.message


def test_limits_that_do_not_matter_are_left_alone() -> None:
    low = facts(locked_memory_bytes=65536, open_files=None, shared_memory=None)
    assert list(compare_limits(expected(), planned(), low)) == []
    assert (
        list(compare_limits(expected(on_cpu=True), planned(), facts(infiniband=True, locked_memory_bytes=1)))
        == []
    )
