"""What tests fork: shows itself, or ends in one of the ways that processes end in."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def show() -> None:
    imported = [name for name in ("torch", "deepspeed", "graphlib") if name in sys.modules]
    descriptors = sorted(int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists())
    said = {
        "arguments": sys.argv[1:],
        "input": sys.stdin.read(),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "pid": os.getpid(),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": descriptors,
        "imported": imported,
    }
    print(json.dumps(said))


def main(ending: str, *more: str) -> None:
    if ending == "show":
        show()
    elif ending == "exit":
        sys.exit(int(more[0]))
    elif ending == "say":
        sys.exit("a reason")
    elif ending == "raise":
        raise ValueError("a reason")
    elif ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif ending == "sleep":
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
