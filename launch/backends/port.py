"""Where ranks of several hosts meet."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.launch.commands import DEFAULT_PORT, Machine


def master_port(machine: Machine) -> int:
    """Of the first host, on which nobody has looked for a free one. Raises VdsgenError for a MASTER_PORT that
    is none."""
    text = machine.environment.get("MASTER_PORT", str(DEFAULT_PORT))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise VdsgenError(f"MASTER_PORT is {text!r}, no port", remedy=f"unset it: then it is {DEFAULT_PORT}")
    return int(text)
