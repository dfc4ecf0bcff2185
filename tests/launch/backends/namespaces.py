"""Hosts with a network each: namespaces of this machine's kernel, joined by a switch, with an sshd in each.

They share this machine's files and processors, as hosts of a lab share a folder; names, addresses and ports
are each one's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.launch.backends.sshd import SSHD_PATH

OF_NAMESPACES = Path("/etc/netns")
"""Files below it stand for those of /etc in a namespace (ip-netns(8))."""
DESK = "desk"
"""Where commands are typed."""


def missing() -> str | None:
    lacking = [tool for tool in ("ssh", "ssh-keygen", "pdsh", "mpirun") if shutil.which(tool) is None]
    lacking += [tool for tool in ("sshd", "ip") if shutil.which(tool, path=SSHD_PATH) is None]
    if lacking:
        return f"there is no {', '.join(lacking)} here"
    return None if os.getuid() == 0 else "network namespaces are made by root only"


@dataclass(frozen=True, slots=True)
class Network:
    """Namespaces that reach each other by their names."""

    prefix: str
    folder: Path
    """With the `ssh` to be put first on PATH."""
    hosts: tuple[str, ...]
    """Those with an sshd. The machine where commands are typed is not among them."""

    def on(self, name: str, *argv: str) -> list[str]:
        """`argv` on the host of that name, which is its host name as well."""
        entered = ["ip", "netns", "exec", f"{self.prefix}-{name}", "unshare", "--uts", "sh", "-c"]
        return [*entered, f'hostname {name} && exec "$@"', "sh", *argv]

    def address(self, name: str) -> str:
        return f"10.77.0.{(DESK, *self.hosts).index(name) + 1}"

    def cut_off(self, host: str) -> None:
        """Nothing comes from or to `host` any more: a cable pulled out, or a machine without power."""
        _ip("-n", f"{self.prefix}-switch", "link", "set", f"to-{host}", "down")

    def join_again(self, host: str) -> None:
        _ip("-n", f"{self.prefix}-switch", "link", "set", f"to-{host}", "up")

    def logins(self, host: str) -> int:
        """Connections that its sshd has let in so far."""
        return (self.folder / f"{host}.log").read_text().count("Accepted publickey")

    def pids(self, host: str) -> list[int]:
        told = _ip("netns", "pids", f"{self.prefix}-{host}").split()
        return [int(pid) for pid in told]


@contextmanager
def network(folder: Path, count: int) -> Iterator[Network]:
    """`count` hosts, `host1` and so on, and `desk`, where commands are typed."""
    folder.mkdir()
    hosts = tuple(f"host{number}" for number in range(1, count + 1))
    made = Network(f"vds{os.getpid()}", folder, hosts)
    addresses = {name: made.address(name) for name in (DESK, *hosts)}
    _write_keys(folder, hosts)
    with ExitStack() as stack:
        _add(f"{made.prefix}-switch", stack)
        switch = ("-n", f"{made.prefix}-switch", "link")
        _ip(*switch, "add", "switch", "type", "bridge")
        _ip(*switch, "set", "switch", "up")
        for name, address in addresses.items():
            _connect(made, name, address, stack)
            _write_names(made, name, addresses, stack)
        for host in hosts:
            _start_sshd(made, host, addresses[host], stack)
        yield made


def _add(namespace: str, stack: ExitStack) -> None:
    _ip("netns", "add", namespace)
    stack.callback(_ip, "netns", "del", namespace)


def _connect(made: Network, name: str, address: str, stack: ExitStack) -> None:
    namespace, switch, port = f"{made.prefix}-{name}", f"{made.prefix}-switch", f"to-{name}"
    _add(namespace, stack)
    _ip("-n", namespace, "link", "add", "eth0", "type", "veth", "peer", port, "netns", switch)
    _ip("-n", switch, "link", "set", port, "master", "switch", "up")
    _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", namespace, "link", "set", device, "up")


def _write_names(made: Network, name: str, addresses: dict[str, str], stack: ExitStack) -> None:
    folder = OF_NAMESPACES / f"{made.prefix}-{name}"
    folder.mkdir(parents=True)
    stack.callback(shutil.rmtree, folder)
    lines = [f"{address} {known}\n" for known, address in addresses.items()]
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))


def _write_keys(folder: Path, hosts: tuple[str, ...]) -> None:
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text("".join(f"{host} {key}\n" for host in hosts))
    (folder / "ssh_config").write_text(
        f"User root\nIdentityFile {folder}/user\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile none\n"
    )
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)


def _start_sshd(made: Network, host: str, address: str, stack: ExitStack) -> None:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    configuration = made.folder / f"sshd_config_{host}"
    configuration.write_text(
        f"ListenAddress {address}\nHostKey {made.folder}/host\nAuthorizedKeysFile {made.folder}/user.pub\n"
        "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        "PidFile none\nPermitRootLogin yes\n"
    )
    sshd = shutil.which("sshd", path=SSHD_PATH)
    assert sshd is not None
    # Without -D it goes to the background once it listens.
    subprocess.run(
        made.on(host, sshd, "-f", str(configuration), "-E", str(made.folder / f"{host}.log")), check=True
    )
    stack.callback(_end, made, host)


def _end(made: Network, host: str) -> None:
    for pid in made.pids(host):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def _ip(*arguments: str) -> str:
    ip = shutil.which("ip", path=SSHD_PATH)
    assert ip is not None
    return subprocess.run([ip, *arguments], check=True, capture_output=True, text=True).stdout
