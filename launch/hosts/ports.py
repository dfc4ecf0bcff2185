"""A port of one host as the others reach it: who has it, and that a listener there is ours."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from pathlib import Path

from vdsgen.launch.hosts.devices import process_name

LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""
LONGEST_GREETING = 256


class Listener:
    """Listens on every address of this host, and greets who connects with a token. Raises OSError where the
    port is taken, with the name of the process that has it where that can be read."""

    def __init__(self, port: int, token: str) -> None:
        try:
            self._socket = _server(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            holder = holder_of(port)
            raise OSError(error.errno, f"taken by {holder}" if holder else "taken") from error
        self._token = token.encode()
        threading.Thread(target=self._greet, name="greet", daemon=True).start()

    def _greet(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(self._token)

    def close(self) -> None:
        # Wakes up `accept`, which a closed descriptor alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _server(port: int) -> socket.socket:
    """Over IPv6 and IPv4, as torch's store listens, where both are there."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def greeting_of(address: str, port: int, seconds: float) -> str:
    """What the listener there says. Raises OSError where nobody is reached, or nothing is said in time."""
    with socket.create_connection((address, port), timeout=seconds) as connection:
        said = b""
        while len(said) < LONGEST_GREETING and (part := connection.recv(LONGEST_GREETING)):
            said += part
        return said.decode(errors="replace")


def holder_of(port: int) -> str | None:
    """`process 17 (python3)` that listens on `port` here; None where it is another user's, or has gone."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()) in inodes:
                pid = int(descriptor.parts[2])
                return f"process {pid} ({process_name(pid)})"
    return None
