from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from vdsgen import __version__
from vdsgen.cli import main
from vdsgen.cli.main import COMMANDS, cli
from vdsgen.errors import InputError, NoPlanFitsError, Problem, VdsgenError


def vdsgen(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vdsgen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_the_commands_are_these() -> None:
    assert set(COMMANDS) == {
        "plan", "generate", "check", "diff", "lint", "verify", "validate", "launch", "export", "ablate",
        "profile", "calibrate", "catalog", "cache", "scan", "preflight", "git", "ci", "report",
        "watch",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_there_and_has_help(name: str) -> None:
    assert importlib.util.find_spec(COMMANDS[name][0]) is not None
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from vdsgen.cli.main import cli, COMMANDS;"
        "r = CliRunner().invoke(cli, ['--help']); assert r.exit_code == 0;"
        "assert all(n in r.output and h.split()[0] in r.output for n, (_, h) in COMMANDS.items());"
        "loaded = [m for m, _ in COMMANDS.values() if m in sys.modules];"
        "assert not loaded, loaded; assert not {'pydantic', 'yaml', 'jinja2', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version() -> None:
    result = vdsgen("--version")
    assert (result.returncode, result.stdout) == (0, f"vdsgen {__version__}\n")


def test_an_unknown_command_gets_a_suggestion() -> None:
    result = vdsgen("plam")
    assert result.returncode == 2
    assert "Did you mean 'plan'?" in result.stderr
    assert "catalog" in vdsgen("frobnicate").stderr


def test_usage_errors_exit_with_2() -> None:
    assert vdsgen("catalog").returncode == 2
    assert vdsgen("catalog", "gpus", "--nonsense").returncode == 2
    assert vdsgen("--nonsense").returncode == 2


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (VdsgenError("no", remedy="yes"), 2, ["error: no", "  -> yes"]),
        (NoPlanFitsError("too big"), 3, ["error: too big"]),
        (
            InputError([Problem("a", "f", 1, 2, "k"), Problem("b", remedy="c")]),
            2,
            ["error: f:1:2: k: a", "error: b", "  -> c"],
        ),
        (
            PermissionError(13, "Permission denied", "out/plan.json"),
            2,
            ["error: out/plan.json: Permission denied"],
        ),
    ],
)
def test_errors_are_printed_once_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, lines: list[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: fails)
    result = CliRunner().invoke(cli, ["plan"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines() == lines


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fails() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: fails)
    assert isinstance(CliRunner().invoke(cli, ["plan"]).exception, AssertionError)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 1)]
)
def test_interrupts_and_closed_pipes_are_quiet(tmp_path: Path, error: BaseException, code: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import click\nfrom vdsgen.cli import main\n"
        "@click.command()\ndef fails():\n    raise " + repr(error) + "\n"
        "main.LazyGroup.get_command = lambda *_: fails\nmain.main()\n"
    )
    result = subprocess.run([sys.executable, script, "plan"], capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert "Traceback" not in result.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m vdsgen catalog gpus --json | head -c 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stdout == "{"
    assert result.stderr == ""


@pytest.mark.parametrize("status", [0, 1])
def test_the_exit_code_of_a_command_is_passed_on(tmp_path: Path, status: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import click\nfrom vdsgen.cli import main\n"
        f"@click.command()\ndef ends():\n    click.get_current_context().exit({status})\n"
        "main.LazyGroup.get_command = lambda *_: ends\nmain.main()\n"
    )
    assert subprocess.run([sys.executable, script, "plan"], check=False).returncode == status
