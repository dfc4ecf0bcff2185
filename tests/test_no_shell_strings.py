"""Nothing here hands a string to a shell, or lets a file say what is to be run; exceptions are listed."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for room in ("vdsgen", "model", "launch")
    for path in sorted((ROOT / room).rglob("*.py"))
    if not any(parent.is_symlink() for parent in path.parents if parent != ROOT and ROOT in parent.parents)
]

NEVER = {
    "eval", "exec", "os.system", "os.popen", "os.spawnl", "os.spawnv", "pty.spawn", "subprocess.getoutput",
    "subprocess.getstatusoutput", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "shelve.open",
    "dill.load", "dill.loads", "joblib.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all",
    "tempfile.mktemp", "numpy.load", "np.load", "__import__",
}  # fmt: skip
STARTS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")}

STARTED_ON_PURPOSE = {
    "vdsgen/render/check_rendered.py": "bash -n, which reads a rendered script without obeying it",
    "vdsgen/report/build_charts.py": "npm and the esbuild that it installed, argument lists",
    "vdsgen/verify/run.py": "this interpreter and a module of ours, a process a stage",
    "model/data/fetch_demo.py": "ffmpeg, an argument list",
    "launch/hold.py": "the ranks of a host: the words behind `--`",
    "launch/rank.py": "becomes the trainer: execv of this interpreter",
    "launch/run.py": "what a backend made, an argument list",
    "launch/preflight.py": "this interpreter, asking DeepSpeed for its devices",
    "launch/submit.py": "sbatch, an argument list",
    "launch/hosts/ask.py": "ssh to a host's probe, or the probe here: an argument list",
    "launch/hosts/devices.py": "nvidia-smi, an argument list",
    "launch/hosts/ranks.py": "this interpreter and a module of ours, a process a rank",
    "vdsgen/review/git/command.py": "git, an argument list, without hooks or programs of the repository",
    "vdsgen/scan/hosts.py": "ssh HOST 'python3 -', which reads the probe from its standard input",
    "vdsgen/scan/slurm.py": "sinfo, an argument list",
}
"""Files in which processes are started, each with one `noqa: S603` or `S606`: ruff's S rules are on for all
else."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_starts_no_shell_and_obeys_no_file(path: Path) -> None:
    for name, call in calls(ast.parse(path.read_text())):
        place = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        assert name not in NEVER, place
        options = {keyword.arg: keyword.value for keyword in call.keywords}
        if name.endswith("torch.load") or (name == "load" and "weights_only" in options):
            plain = options.get("weights_only")
            assert isinstance(plain, ast.Constant) and plain.value is True, (
                f"{place} without weights_only=True"
            )
        if name in STARTS:
            assert "shell" not in options, place
            assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp), (
                f"{place} of a string"
            )


def test_processes_are_started_where_they_are_listed() -> None:
    found = Counter(
        str(path.relative_to(ROOT))
        for path in SOURCES
        for _ in re.finditer(r"noqa: S60[0-6]", path.read_text())
    )
    assert found == dict.fromkeys(STARTED_ON_PURPOSE, 1)


def test_the_lists_are_of_files_that_are_there() -> None:
    assert len(SOURCES) > 300
    assert all((ROOT / name).is_file() for name in STARTED_ON_PURPOSE)
