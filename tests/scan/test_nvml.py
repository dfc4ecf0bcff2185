"""The probe with nvidia-ml-py itself: without a driver, and with a driver's library that is made for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scan.machines import V100_SERVER, FakeNvml, answer_of
from vdsgen.scan import probe
from vdsgen.scan.answer import Gpus
from vdsgen.scan.node import node_of

pynvml = pytest.importorskip("pynvml")


def test_the_stand_in_has_what_the_package_has() -> None:
    calls = {name for name in dir(FakeNvml) if name.startswith("nvml")}
    assert calls == {name for name in calls if callable(getattr(pynvml, name))}
    for name in calls:
        mine, theirs = getattr(FakeNvml, name).__code__, getattr(pynvml, name)
        theirs = getattr(theirs, "__wrapped__", theirs).__code__
        assert mine.co_argcount - 1 <= theirs.co_argcount, name
    assert issubclass(pynvml.NVMLError, Exception)


def test_figures_of_the_library_are_as_the_probe_has_them() -> None:
    named = {name: getattr(pynvml, f"NVML_TOPOLOGY_{name}") for name in ("SINGLE", "MULTIPLE", "HOSTBRIDGE")}
    assert [probe.NVML_PATHS[level] for level in named.values()] == ["PIX", "PXB", "PHB"]
    assert probe.NVML_PATHS[pynvml.NVML_TOPOLOGY_NODE] == "NODE"
    assert probe.NVML_PATHS[pynvml.NVML_TOPOLOGY_SYSTEM] == "SYS"
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM) == (1, 2)
    assert probe.NVLINK_TO_PROCESSOR == pynvml.NVML_NVLINK_DEVICE_TYPE_IBMNPU
    assert probe.MOST_NVLINKS >= pynvml.NVML_NVLINK_MAX_LINKS


def asked(folder: Path, libraries: Path | None) -> Gpus:
    """What a process of its own answers, whose loader looks into `libraries` first."""
    (folder / "nothing").mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": str(folder / "nothing")}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    code = "import sys; exec(sys.stdin.read())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=Path(probe.__file__).read_text(), env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1].removeprefix(probe.MARK))["gpus"]
    return Gpus.model_validate_json(json.dumps(found))


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
def test_no_driver_is_said(tmp_path: Path) -> None:
    found = asked(tmp_path, None)
    assert (found.by, found.devices) == ("none", ())
    assert found.problem is not None and found.problem.startswith("NVML: ")


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_a_drivers_library_is_asked_through_the_package(tmp_path: Path) -> None:
    source = Path(__file__).with_name("nvml_here.c")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(source)], check=True
    )
    found = asked(tmp_path, tmp_path)
    stood_in = answer_of(V100_SERVER).gpus
    assert found.by == "nvml" and len(found.devices) == 8
    assert [pair.nvlinks for pair in found.pairs] == [pair.nvlinks for pair in stood_in.pairs]
    assert found.devices[0].name == stood_in.devices[0].name and found.devices[0].cuda_cores == 5120
    assert {pair.path for pair in found.pairs} == {"NODE", "SYS"}
    node = node_of(answer_of(V100_SERVER, gpus=found.model_dump(mode="json")), "dgx")
    assert node.hardware["gpu"].value == "v100-16gb-sxm2" and node.hardware["intra_node"].value == "nvlink-2"
