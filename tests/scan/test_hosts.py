"""Hosts behind a real sshd, here two addresses of this machine, and files that name hosts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.backends.sshd import HOSTS, missing_tools, running_sshd
from tests.scan import recorded
from tests.scan.test_probe import tool
from vdsgen.errors import InputError, VdsgenError
from vdsgen.scan import probe
from vdsgen.scan.hosts import ask_host, ask_hosts, read_hosts
from vdsgen.scan.scan import scan_hosts

real_ssh = pytest.mark.skipif(missing_tools() is not None, reason=missing_tools() or "")


def two_hosts(folder: Path) -> str:
    """A PATH on which nvidia-smi tells of other GPUs on each address that ssh came to."""
    query = [
        "".join(
            f"NVIDIA GeForce RTX {card}, 00000000:0{gpu}:00.0, {mib}, 4, 4, 16, [N/A]\n" for gpu in range(4)
        )
        for card, mib in (("4090", 24564), ("3090", 24576))
    ]
    tool(
        folder,
        "nvidia-smi",
        f"case \"$1\" in topo) cat <<'E'\n{recorded.PCIE_TOPOLOGY}E\nexit;; esac\n"
        f"case \"$SSH_CONNECTION\" in *' {HOSTS[0]} '*) cat <<'E'\n{query[0]}E\n;;\n"
        f"*) cat <<'E'\n{query[1]}E\n;;\nesac",
    )
    tool(folder, "python3", f'exec "{sys.executable}" "$@"')
    return f"{folder}:/usr/bin:/bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hosts")
    with running_sshd(folder / "sshd", path=two_hosts(folder / "bin")) as ssh:
        yield ssh


@pytest.fixture
def reached(server: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{server}:{os.environ['PATH']}")
    return server


@real_ssh
def test_hosts_are_probed_at_once_and_nothing_is_left_there(reached: Path) -> None:
    found = scan_hosts((*HOSTS, "127.0.0.9"))
    four_4090, four_3090 = found.lab["pools"]
    assert (four_4090["gpu"], four_4090["hosts"]) == ("rtx-4090", [HOSTS[0]])
    assert (four_3090["gpu"], four_3090["hosts"]) == ("rtx-3090", [HOSTS[1]])
    assert four_3090["intra_node"] == "pcie-4.0-x16"
    assert [answer.gpus.by for answer in found.answers] == ["nvidia-smi"] * 2
    ((host, reason),) = found.missed
    assert host == "127.0.0.9" and "refused" in reason
    assert "GPUs by nvidia-smi, for want of nvidia-ml-py" in found.text.replace("\n# ", " ")


@real_ssh
def test_a_host_whose_key_is_not_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sshd(tmp_path / "sshd", known=False) as ssh:
        monkeypatch.setenv("PATH", f"{ssh}:{os.environ['PATH']}")
        heard = ask_host(HOSTS[0])
    assert heard.answer is None and "Host key verification failed" in (heard.failure or "")


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ("exec sleep 60", "no answer within 0.5 s"),
        ("cat > /dev/null; yes", "it does not stop printing"),
        ("cat > /dev/null; echo Welcome", "the probe printed no answer"),
        (f"cat > /dev/null; echo '{probe.MARK}{{}}'", "not what was asked for"),
        ("echo 'python3: command not found' >&2; exit 127", "python3: command not found"),
        ("exit 255", "ssh ended with 255"),
    ],
)
def test_hosts_that_answer_badly_say_why(
    body: str, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path / "bin", "ssh", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    heard = ask_host("ada", seconds=0.5 if "sleep" in body else 20)
    assert heard.answer is None and failure in (heard.failure or "")


def test_words_for_ssh_are_fixed_but_for_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path / "bin", "ssh", f'cat > /dev/null; printf "%s\\n" "$@" > {tmp_path}/words.$$')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert [heard.host for heard in ask_hosts(("ada", "bee"))] == ["ada", "bee"]
    words = sorted(path.read_text().splitlines()[-3:] for path in tmp_path.glob("words.*"))
    assert words == [["--", "ada", "python3 -"], ["--", "bee", "python3 -"]]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VdsgenError, match="no ssh here"):
        ask_host("ada")


def test_a_file_of_hosts(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# the lab\nada\n\nbee slots=4  # a hostfile's line\ncat.example.org\n")
    assert read_hosts(path) == ("ada", "bee", "cat.example.org")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-oProxyCommand=touch /tmp/x\n", "is no host name"),
        ("ada\nroot@bee\n", "hosts:2: 'root@bee' is no host name"),
        ("ada;reboot\n", "is no host name"),
        ("ada bee\n", "after ada stands 'bee'"),
        ("ada\nbee\nada\n", "ada stands in line 1 too"),
        ("# nobody\n", "names no host"),
        ("\n".join(f"h{number}" for number in range(1025)), "1025 hosts"),
    ],
)
def test_bad_lines_are_named_and_nobody_is_asked(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        read_hosts(path)
