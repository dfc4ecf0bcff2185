"""Files are written all or none, and nothing of somebody else's is touched."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.render.plans import plan_of, small_experiment
from vdsgen.errors import VdsgenError
from vdsgen.render.render import FILES, render_plan
from vdsgen.render.write import write_files

OLD = render_plan(plan_of(), small_experiment())
NEW = render_plan(plan_of(accumulation=4), small_experiment(steps=20))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_directory_is_made_and_holds_exactly_the_files(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    write_files(target, OLD)
    assert contents(target) == OLD
    assert sorted(OLD) == sorted(FILES)


def test_launch_sh_can_be_run_and_nothing_else(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        write_files(tmp_path, OLD)
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {name: 0o755 if name == "launch.sh" else 0o644 for name in FILES}


def test_rendering_again_replaces_the_files_and_leaves_notes_alone(tmp_path: Path) -> None:
    write_files(tmp_path, OLD)
    (tmp_path / "notes.txt").write_text("mine")
    write_files(tmp_path, NEW)
    assert contents(tmp_path) == {**NEW, "notes.txt": b"mine"}


def test_a_directory_of_other_things_is_refused_by_name(tmp_path: Path) -> None:
    for name in "gfedcba":
        (tmp_path / name).write_text("mine")
    with pytest.raises(VdsgenError, match="it holds a, b, c, d, e and 2 more"):
        write_files(tmp_path, OLD)
    assert len(contents(tmp_path)) == 7


@pytest.mark.parametrize("plan", ["{}", "[]", "not json", '{"generator": "something else"}'])
def test_a_plan_json_of_another_program_is_not_taken_for_ours(tmp_path: Path, plan: str) -> None:
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(VdsgenError, match=r"it holds plan\.json"):
        write_files(tmp_path, OLD)
    assert contents(tmp_path) == {"plan.json": plan.encode()}


def test_a_file_in_the_directory_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(VdsgenError, match="is a file, not a directory"):
        write_files(tmp_path / "out", OLD)
    with pytest.raises(VdsgenError, match="cannot write"):
        write_files(tmp_path / "out" / "below", OLD)
    assert (tmp_path / "out").read_text() == "mine"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "rendered"
    write_files(target, OLD)
    (tmp_path / "precious").write_text("mine")
    (target / "hostfile").unlink()
    (target / "hostfile").symlink_to(tmp_path / "precious")
    with pytest.raises(VdsgenError, match="hostfile is a symbolic link"):
        write_files(target, NEW)
    assert (tmp_path / "precious").read_text() == "mine"
    assert (target / "plan.json").read_bytes() == OLD["plan.json"]


def test_a_directory_in_a_file_s_place_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, OLD)
    (tmp_path / "hostfile").unlink()
    (tmp_path / "hostfile").mkdir()
    with pytest.raises(VdsgenError, match="hostfile is a directory"):
        write_files(tmp_path, NEW)
    assert (tmp_path / "plan.json").read_bytes() == OLD["plan.json"]


def test_what_an_interrupted_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".plan.json.vdsgen-pending").write_text("half")
    write_files(tmp_path, OLD)
    assert contents(tmp_path) == OLD


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.render.test_write import NEW
from vdsgen.errors import VdsgenError
from vdsgen.render.write import write_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = (len(NEW["ds_config.json"]) + len(NEW["plan.json"])) // 2
assert len(NEW["ds_config.json"]) < limit < len(NEW["plan.json"])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_files(Path(sys.argv[1]), NEW)
except VdsgenError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_leaves_the_old_files_whole(tmp_path: Path) -> None:
    """Files may grow to a size between two of them: the first is written, a later one fails."""
    write_files(tmp_path, OLD)
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (2, "")
    assert "plan.json" in result.stdout and "File too large" in result.stdout
    assert contents(tmp_path) == OLD


UNWRITABLE = """
import os, sys
from pathlib import Path
from tests.render.test_write import NEW
from vdsgen.errors import VdsgenError
from vdsgen.render.write import write_files
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    write_files(Path(sys.argv[1]), NEW)
except VdsgenError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_an_unwritable_directory_leaves_the_old_files_whole(tmp_path: Path) -> None:
    write_files(tmp_path / "out", OLD)
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    (tmp_path / "out").chmod(0o555)
    result = subprocess.run(
        [sys.executable, "-c", UNWRITABLE, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (result.returncode, result.stderr) == (2, "")
    assert "Permission denied" in result.stdout
    assert contents(tmp_path / "out") == OLD
