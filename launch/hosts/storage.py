"""Whether what a run writes has room, and what it reads is there: on every host the same. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vdsgen.launch.hosts.expected import Expected, PlannedHost
from vdsgen.launch.hosts.facts import HostFacts
from vdsgen.launch.hosts.finding import Finding, Severity
from vdsgen.launch.hosts.words import names, size

CLOSE = 1.1
"""A disk with less room than so many times what is needed is soon full: logs and samples come besides."""
OTHER_FILES = 200
"""Of a run besides its checkpoints: logs, metrics, curves, samples."""


def compare_disks(expected: Expected, planned: PlannedHost, facts: HostFacts) -> Iterator[Finding]:
    """Room for checkpoints where the run directory lies, and for offload on the host's own flash."""
    disk = facts.output
    if disk is not None:
        if not disk.writable:
            yield _disk(
                planned,
                "error",
                f"{disk.path} cannot be written to",
                "make it writable, or choose another --output",
            )
        elif disk.free_bytes < CLOSE * expected.disk_bytes:
            short = disk.free_bytes < expected.disk_bytes
            yield _disk(
                planned,
                "error" if short else "warning",
                f"{disk.path} has {size(disk.free_bytes)} free, "
                f"{_checkpoints(expected)} {size(expected.disk_bytes)}",
                "free space, choose another --output, or lower training.saving.keep in the experiment",
            )
        files = expected.checkpoints * _files_of_a_checkpoint(expected) + OTHER_FILES
        if disk.free_files is not None and disk.free_files < files:
            yield _disk(
                planned,
                "error",
                f"{disk.path} has room for {disk.free_files:,} more files (inodes), the run writes {files:,}",
                "delete files that nobody needs, or choose another --output",
            )
    yield from _flash(expected, planned, facts)


def _checkpoints(expected: Expected) -> str:
    if expected.checkpoints == 1:
        return "a checkpoint needs"
    return f"{expected.checkpoints} checkpoints of {size(expected.checkpoint_bytes)} need"


def _files_of_a_checkpoint(expected: Expected) -> int:
    """Two or three a rank, one a layer, and some besides."""
    layers = max(rank.stage.layers[1] for rank in expected.ranks)
    return 3 * expected.world_size + layers + 5


def _flash(expected: Expected, planned: PlannedHost, facts: HostFacts) -> Iterator[Finding]:
    if expected.nvme is None:
        return
    needed = sum(rank.stage.nvme_bytes for rank in planned.ranks)
    correct = "correct `nvme:` in the lab file and generate again"
    if facts.nvme is None:
        problem = facts.nvme_problem or "cannot be looked at"
        yield _disk(
            planned, "error", f"{expected.nvme}, where offload goes: {problem}", f"mount it, or {correct}"
        )
    elif not facts.nvme.writable:
        yield _disk(planned, "error", f"{expected.nvme}, where offload goes, cannot be written to", correct)
    elif facts.nvme.free_bytes < needed:
        message = f"{expected.nvme} has {size(facts.nvme.free_bytes)} free, offload needs {size(needed)}"
        yield _disk(planned, "error", message, f"free space there, or {correct}")


def compare_inputs(paths: Mapping[str, str], planned: PlannedHost, facts: HostFacts) -> Iterator[Finding]:
    """`paths`: keys of train.yaml -> what they name, which is there for the launcher."""
    for key, path in paths.items():
        state = facts.inputs.get(key)
        if state is None:
            continue
        if not state.found:
            yield _input(planned, f"{key}: {path}: {state.problem}")
        elif state.differing:
            count = f"{len(state.differing)} of the files looked at"
            yield _input(planned, f"{key}: {path}: {count} are not as here: {names(state.differing, 2)}")


def _input(planned: PlannedHost, message: str) -> Finding:
    remedy = "mount the same folder on all hosts, under the same path"
    return Finding(severity="error", check="inputs", host=planned.name, message=message, remedy=remedy)


def _disk(planned: PlannedHost, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(severity=severity, check="disks", host=planned.name, message=message, remedy=remedy)
