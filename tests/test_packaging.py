"""The wheel holds what git tracks, works from any directory, and installs nothing but `vdsgen`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Where a tracked file of the source tree stands in the wheel. The links inside `vdsgen` are skipped:
# what they point at is packaged once, under its real folder.
PACKAGED_FOLDERS = {"vdsgen": "vdsgen", "model": "vdsgen/model", "launch": "vdsgen/launch"}
TEMPLATES = ("templates", "vdsgen/templates")


def tracked_files() -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [name for name in listing.stdout.split("\0") if name]


def expected_in_wheel() -> set[str]:
    expected = set()
    for name in tracked_files():
        top, _, rest = name.partition("/")
        if (ROOT / name).is_symlink():
            continue
        if top in PACKAGED_FOLDERS:
            expected.add(f"{PACKAGED_FOLDERS[top]}/{rest}")
        elif top == TEMPLATES[0] and name.endswith((".py", ".j2")):
            expected.add(f"{TEMPLATES[1]}/{rest}")
    return expected


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout to know the tracked files")
    scratch = tmp_path_factory.mktemp("wheel")
    source = scratch / "source"
    # A copy of the tracked files alone: an untracked file must not slip into the wheel, and building
    # in the checkout would leave build/ behind.
    for name in tracked_files():
        origin, copy = ROOT / name, source / name
        if not origin.exists() and not origin.is_symlink():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            copy.symlink_to(origin.readlink())
        else:
            copy.write_bytes(origin.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "--wheel-dir", scratch, source], check=True, cwd=scratch)
    (built,) = scratch.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run_installed(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -I would hide the target; an empty cwd and -P keep the checkout out of sys.path instead.
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_wheel_holds_exactly_the_tracked_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert names == expected_in_wheel()


def test_wheel_puts_only_vdsgen_into_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/", 1)[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vdsgen"}


def test_installed_wheel_plans_and_renders_from_any_directory(installed: Path, tmp_path: Path) -> None:
    out = tmp_path / "rendered"
    result = run_installed(
        installed,
        tmp_path,
        "-m",
        "vdsgen",
        "generate",
        str(ROOT / "examples/experiments/article-1.5b.yaml"),
        "--lab",
        str(ROOT / "examples/labs/four-24gb.yaml"),
        "--out",
        str(out),
    )
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir()} >= {"ds_config.json", "plan.json", "train.yaml", "launch.sh"}


def test_installed_wheel_runs_its_own_code(installed: Path, tmp_path: Path) -> None:
    result = run_installed(
        installed, tmp_path, "-c", "import vdsgen.model, vdsgen.launch; print(vdsgen.model.__file__)"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(installed))


@pytest.mark.parametrize("bare", ["model", "launch"])
def test_bare_import_of_the_real_folders_is_refused(bare: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", f"import {bare}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert f"import this package as `vdsgen.{bare}`" in result.stderr
