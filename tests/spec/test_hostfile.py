from __future__ import annotations

from pathlib import Path

import pytest

from vdsgen.errors import VdsgenError
from vdsgen.spec.rendered import parse_hostfile, read_hostfile


def test_names_users_and_addresses_are_hosts() -> None:
    text = "# nodes\n\nada slots=4\r\n me@bee.lab slots=2 \n10.0.0.1\tslots=8\ngpu_3 slots=1\n"
    assert parse_hostfile(text) == {"ada": 4, "me@bee.lab": 2, "10.0.0.1": 8, "gpu_3": 1}


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch", "-F/etc/passwd", "--", "a@-x", "me@", "@ada", "a@b@c", "ada,bee", "ada[1-4]",
    "^/etc/passwd",
     "ssh:ada", "$(id)", "`id`", "ada;id", "ada%n", "\u0430da", "a" * 300, "'ada'", "ada\x0b"],
)  # fmt: skip
def test_what_ssh_pdsh_or_a_shell_would_take_for_something_else_is_refused(host: str) -> None:
    with pytest.raises(VdsgenError, match=r"hostfile:2: .* is no (name of a host|`HOST slots=N`)"):
        parse_hostfile(f"bee slots=1\n{host} slots=4\n")


@pytest.mark.parametrize("slots", ["9" * 5000, "-1", "\u0664", "4.0", "", "0x4"])
def test_slots_are_a_number(slots: str) -> None:
    with pytest.raises(VdsgenError, match=r"hostfile:1: .* is no `HOST slots=N`"):
        parse_hostfile(f"ada slots={slots}\n")


def test_a_file_that_is_no_text_is_refused_by_name_and_line(tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_bytes(b"ada slots=4\n\xff slots=1\n")
    with pytest.raises(VdsgenError, match=r"/hostfile: hostfile:2: no UTF-8 text \(byte 0xff\)"):
        read_hostfile(path)
    path.write_bytes(b"x" * 2**21)
    with pytest.raises(VdsgenError, match="larger than"):
        read_hostfile(path)
