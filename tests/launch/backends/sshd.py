"""A real sshd on this machine's own addresses, with keys made for it."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOSTS = ("127.0.0.2", "127.0.0.3")
"""Not names by which this machine knows itself: launching takes them for other hosts."""


def missing_tools() -> str | None:
    lacking = [tool for tool in ("ssh", "ssh-keygen") if shutil.which(tool) is None]
    if shutil.which("sshd", path=SSHD_PATH) is None:
        lacking.append("sshd")
    return f"there is no {', '.join(lacking)} here" if lacking else None


SSHD_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextmanager
def running_sshd(
    folder: Path, *, known: bool = True, path: str | None = None, through: Path | None = None
) -> Iterator[Path]:
    """A folder whose `ssh`, put first on PATH, reaches HOSTS. `known`: the client knows the hosts' key;
    `path`: where hosts look for programs; `through`: a program that they run in place of each command, which
    it finds in SSH_ORIGINAL_COMMAND."""
    folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as probe:
        probe.bind((HOSTS[0], 0))
        port = probe.getsockname()[1]
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (folder / "sshd_config").write_text(
        "".join(f"ListenAddress {host}\n" for host in HOSTS)
        + f"Port {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\n"
        + (f"SetEnv PATH={path}\n" if path else "")
        + ("" if through is None else f"ForceCommand {through}\n")
    )
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    names = [f"[{host}]:{port} {key}\n" for host in HOSTS]
    (folder / "known_hosts").write_text("".join(names) if known else "")
    (folder / "ssh_config").write_text(
        f"Port {port}\nUser {getpass.getuser()}\nIdentityFile {folder}/user\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile none\n"
    )
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)
    sshd = shutil.which("sshd", path=SSHD_PATH)
    assert sshd is not None
    server = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        yield folder
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection((HOSTS[0], port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("sshd does not listen")
