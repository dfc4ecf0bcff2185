"""The process on a host, and the launcher's end of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vdsgen
from tests.forks.start import free_port
from tests.launch.test_commands import machine
from vdsgen.launch.hosts.ask import Host, HostError
from vdsgen.launch.hosts.facts import HostFacts, InputRequest, LookRequest
from vdsgen.launch.hosts.look import disk, look
from vdsgen.launch.hosts.ports import Listener, greeting_of, holder_of
from vdsgen.launch.hosts.probe import Probe
from vdsgen.launch.watch import PROC

ROOT = Path(__file__).parents[3]


def request(tmp_path: Path, **changes: object) -> LookRequest:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"12345")
    (tmp_path / "plan.json").write_text("{}")
    values: dict[str, object] = {
        "accelerators": False,
        "directory": str(tmp_path),
        "files": ("plan.json", "train.yaml"),
        "output": str(tmp_path / "runs" / "1"),
        "nvme": str(tmp_path / "none"),
        "inputs": {
            "data.videos": InputRequest(path=str(tmp_path / "clips"), samples={"a.mp4": 5, "b.mp4": 1}),
            "model.weights": InputRequest(path=str(tmp_path / "gone")),
        },
    }
    return LookRequest.model_validate(values | changes)


def test_a_host_tells_of_itself(tmp_path: Path) -> None:
    told = look(request(tmp_path))
    assert told.hostname == socket.gethostname()
    assert {"python", "vdsgen", "torch", "deepspeed", "numpy", "av"} <= set(told.versions)
    assert 0 < told.memory_available_bytes <= told.memory_total_bytes
    assert told.cores == len(os.sched_getaffinity(0))
    assert told.output is not None and told.output.path == str(tmp_path)
    assert told.output.writable
    assert (told.nvme, told.nvme_problem) == (None, "No such file or directory")
    assert list(told.rendered) == ["plan.json"]
    assert told.inputs["data.videos"].differing == ("b.mp4",)
    assert told.inputs["model.weights"].problem == "No such file or directory"
    assert HostFacts.model_validate_json(told.model_dump_json()) == told


def test_other_bytes_of_a_module_have_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vdsgen.launch.hosts import look as module

    package = tmp_path / "vdsgen"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "model").mkdir()
    (package / "model").symlink_to("../model")
    monkeypatch.setattr(vdsgen, "__file__", str(package / "__init__.py"))
    hashes = [module.code_sha256()]
    for path in (package / "a.py", tmp_path / "model" / "b.py"):
        path.write_text("x = 1\n")
        hashes.append(module.code_sha256())
    assert len(set(hashes)) == 3


def test_a_disk_of_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    assert disk(tmp_path / "a" / "b").path == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        disk(tmp_path / "a", there=True)


def test_requests_that_fail_are_answered(tmp_path: Path) -> None:
    probe = Probe()
    assert probe.answer({"do": "mark", "folder": str(tmp_path / "x"), "name": "a", "token": "t"}) == {
        "error": "No such file or directory"
    }
    assert "KeyError" in probe.answer({"do": "nothing"})["error"]
    assert "KeyError" in probe.answer({"do": "mark"})["error"]
    assert "error" in probe.answer({"do": "look", "request": "{}"})


def test_tokens_are_seen_once_they_are_there(tmp_path: Path) -> None:
    probe = Probe()
    assert probe.answer({"do": "mark", "folder": str(tmp_path), "name": "a", "token": "t"}) == {}
    asked = {"do": "seen", "folder": str(tmp_path), "names": ["a", "b"], "patience_seconds": 0.1}
    assert probe.answer(asked) == {"tokens": {"a": "t"}}


def test_a_port_has_one_listener_who_is_known() -> None:
    port = free_port()
    listener = Listener(port, "hello")
    try:
        assert greeting_of("127.0.0.1", port, 5) == "hello"
        assert holder_of(port) == f"process {os.getpid()} ({(PROC / 'self' / 'comm').read_text().strip()})"
        with pytest.raises(OSError, match=f"taken by process {os.getpid()}"):
            Listener(port, "other")
    finally:
        listener.close()
    assert holder_of(port) is None
    with pytest.raises(ConnectionRefusedError):
        greeting_of("127.0.0.1", port, 5)
    Listener(port, "again").close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Host("here", machine(python=Path(sys.executable)), {}, here=True) as host:
        yield host


def test_a_probe_answers_and_ends_with_its_input(here: Host) -> None:
    assert abs(here.ask("clock")["seconds"] - time.time()) < 5
    with pytest.raises(HostError, match="KeyError"):
        here.ask("nothing")
    here.close()
    assert here._process.returncode == 0


RANK = """
import json, os, sys
print("noise")
if "fail" in sys.argv and os.environ["RANK"] == "3": sys.exit("a reason\\nthe last word")
if "hang" in sys.argv: __import__("time").sleep(60)
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GIVEN", "HOME")
print(json.dumps([os.environ.get(name) for name in names]))
"""


def ask_ranks(host: Host, *arguments: str, seconds: float = 20.0) -> dict[str, object]:
    ranks = {
        "module": "small_rank", "first_rank": 2, "count": 2, "world_size": 4, "address": "n1", "port": 29500,
        "arguments": arguments, "environment": {"GIVEN": "x", "HOME": None}, "seconds": seconds,
    }  # fmt: skip
    return host.ask("ranks", ranks=ranks, seconds=60.0)


def test_ranks_run_and_end_with_their_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with Host("here", machine(python=Path(sys.executable)), {}, here=True) as host:
        assert ask_ranks(host) == {
            "results": {
                "2": ["2", "0", "4", "n1", "29500", "x", None],
                "3": ["3", "1", "4", "n1", "29500", "x", None],
            }
        }
        assert ask_ranks(host, "fail") == {
            "error": "exited with code 1", "rank": 3, "words": "a reason\nthe last word"
        }  # fmt: skip
        assert ask_ranks(host, "hang", seconds=0.5)["error"] == "took too long"


def test_ranks_end_when_nobody_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small_rank.py").write_text(RANK)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "VDSGEN_TEST_MARK": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "vdsgen.launch.hosts.probe"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as probe:
        assert probe.stdin is not None and probe.stdout is not None
        probe.stdout.readline()
        ranks = {
            "module": "small_rank", "first_rank": 0, "count": 1, "world_size": 1, "address": "n1",
            "port": 1, "arguments": ["hang"], "environment": {}, "seconds": 60,
        }  # fmt: skip
        probe.stdin.write(json.dumps({"do": "ranks", "ranks": ranks}) + "\n")
        probe.stdin.flush()
        deadline = time.monotonic() + 10
        while len(_marked(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(_marked(tmp_path)) == 2
        probe.stdin.close()
        probe.wait(20)
    assert _marked(tmp_path) == []


def _marked(mark: Path) -> list[int]:
    found = []
    for entry in PROC.glob("[0-9]*/environ"):
        try:
            if f"VDSGEN_TEST_MARK={mark}".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def test_a_login_shell_may_print_what_it_likes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noisy = tmp_path / "python"
    noisy.write_text(f'#!/bin/sh\necho "Welcome!"\nprintf "no newline"\necho\nexec {sys.executable} "$@"\n')
    noisy.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Host("here", machine(python=noisy), {}, here=True) as host:
        assert "seconds" in host.ask("clock")


@pytest.mark.parametrize(
    ("script", "words", "remedy"),
    [
        ("echo 'Permission denied (publickey).' >&2; exit 255", "Permission denied", "ssh-copy-id here"),
        ("echo '/usr/bin/python: No module named vdsgen' >&2; exit 1", "No module named", "install vdsgen"),
        ("exit 7", "ended with code 7", None),
    ],
)
def test_what_ssh_says_becomes_a_remedy(tmp_path: Path, script: str, words: str, remedy: str | None) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    with pytest.raises(HostError, match=words) as caught:
        Host("here", machine(python=broken), {}, here=True)
    assert (remedy or "") in (caught.value.remedy or "")


def test_without_ssh_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="there is no ssh here"):
        Host("n1", machine(), {}, here=False)
