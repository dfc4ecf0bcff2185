"""What DeepSpeed's runner writes into the command line that it gives to hosts' shells, checked beforehand.

It sends every variable whose name begins as below, and what the file .deepspeed_env says
(launcher/runner.py:36,598-614), as `export NAME=VALUE; `: a value that is no plain word in double quotes,
inside which a shell still obeys `$`, backticks and backslashes (launcher/multinode_runner.py:41). The whole
line goes to its log, and stands in the hosts' process lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.spec.secrets import is_secret

SENT = ("MLFLOW", "PYTHON", "MV2", "UCX", "NCCL")
"""EXPORT_ENVS, and what its accelerator for NVIDIA and AMD adds (accelerator/cuda_accelerator.py:411)."""
ENVIRONMENT_FILE, FILES_NAME = ".deepspeed_env", "DS_ENV_FILE"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OBEYED = re.compile(r"[\"$`\\!\x00-\x1f\x7f]")
"""What a shell obeys inside double quotes."""
_OTHERWISE = "or --launcher ssh, which quotes values and sends no such variable"


def withheld(environment: Mapping[str, str]) -> dict[str, None]:
    """The variables that the runner is to be started without: secrets, and names that no shell takes.

    Raises VdsgenError for a value that a host's shell would not take as it is."""
    sent = {name: value for name, value in environment.items() if name.startswith(SENT)}
    left_out = {name for name, value in sent.items() if is_secret(name, value) or not _NAME.fullmatch(name)}
    for name in sorted(sent.keys() - left_out):
        if _OBEYED.search(sent[name]):
            raise VdsgenError(
                f"{name} has characters that a remote shell would obey, and DeepSpeed's runner sends it to "
                "every host",
                remedy=f"unset it or write it without quotes, $, `, \\ and !; {_OTHERWISE}",
            )
    return dict.fromkeys(sorted(left_out))


def check_environment_files(environment: Mapping[str, str], folders: tuple[Path, ...]) -> None:
    """Raises VdsgenError where the runner's file of variables, in one of `folders`, holds a secret, or what a
    host's shell would obey."""
    name = environment.get(FILES_NAME, ENVIRONMENT_FILE)
    for path in (folder / name for folder in folders):
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), start=1):
            variable, equals, value = line.partition("=")
            place = f"{path}:{number}"
            if not equals or not _NAME.fullmatch(variable.strip()):
                raise VdsgenError(
                    f"{place}: is no NAME=VALUE, and DeepSpeed's runner reads it", remedy="correct the line"
                )
            if is_secret(variable.strip(), value):
                raise VdsgenError(
                    f"{place}: {variable.strip()} holds a secret, and DeepSpeed's runner writes it into "
                    f"every host's "
                    "process list and its own log",
                    remedy="take it out, and set it on the hosts themselves",
                )
            if _OBEYED.search(value.strip()):
                raise VdsgenError(
                    f"{place}: {variable.strip()} has characters that a remote shell would obey",
                    remedy=f"write it without quotes, $, `, \\ and !; {_OTHERWISE}",
                )
