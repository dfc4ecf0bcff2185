"""Hostfiles: read by every launcher, and by DeepSpeed's own runner after them."""

from __future__ import annotations

import random

from tests.campaigns.fuzzing.case import Case
from tests.campaigns.fuzzing.inputs.rendered import clips, launched, rendered
from tests.campaigns.fuzzing.trees import damaged
from tests.campaigns.fuzzing.values import CANARY, SHELL, text

HOSTS = (
    "ada", "bee", "user@ada", "10.0.0.1", "fe80::1", "ada.lab.example", "localhost", f"-oProxyCommand=touch${{IFS}}{CANARY}",
    f"-oProxyCommand=touch\t{CANARY}", "-F/etc/passwd", "--", "-", "ada,bee", "ada^/etc/passwd", "^/etc/passwd", "-x", "/a.*/",
    "ada[1-4]", "ssh:ada", f"ada;touch${{IFS}}{CANARY}", f"$(touch${{IFS}}{CANARY})", f"`touch${{IFS}}{CANARY}`", "ada%n", "%h",
    "ada\x0bbee", "a" * 300, "ada\u2028", "\u0430da", "ada:4", "ada@4", "@ada", "a@b@c", "root@-x", "user@", "#ada", "ada#", "'ada'",
)  # fmt: skip
SLOTS = (
    "4",
    "1",
    "0",
    "-1",
    "2",
    "1024",
    "9" * 30,
    "9" * 5000,
    "4.0",
    "\u0664",
    "0x4",
    "4 4",
    "",
    " 4",
    "1e3",
    "+2",
    "four",
)


def case(rng: random.Random) -> Case:
    pair = rng.choice(
        (("cpu-demo", "cpu-demo"), ("article-1.5b-pinned", "four-24gb"), ("article-1.2b", "two-hosts"))
    )
    files = dict(rendered(*pair))
    files["hostfile"] = _content(rng, files["hostfile"])
    below = {f"plan/{name}": content for name, content in files.items()} | clips()
    commands = [launched(rng, "plan", "run"), ("check", "plan")]
    return Case(
        kind="hostfile", files=below, commands=tuple(rng.sample(commands, rng.choice((1, 2)))) if rng.random() < 0.3 else (commands[0],),
        named=("hostfile", "GPU", "CUDA", "train.sbatch", "hosts", "--launcher"),
    )  # fmt: skip


def _content(rng: random.Random, written: bytes) -> bytes:
    how = rng.random()
    if how < 0.2:
        return damaged(rng, written)
    if how < 0.25:
        return rng.choice(
            (
                b"ada slots=4\n" * 2,
                b"\xff\xfe",
                b"ada slots=1\r\n",
                b"a slots=1\n" * 50_000,
                b"x" * 2_000_000,
                b"\x00",
            )
        )
    lines = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        host = rng.choice(HOSTS) if rng.random() < 0.7 else rng.choice((text(rng), rng.choice(SHELL)))
        slots = "4" if rng.random() < 0.6 else rng.choice(SLOTS)
        lines.append(
            rng.choice(
                (f"{host} slots={slots}",) * 5
                + (
                    f"{host}\tslots={slots} # x",
                    f"{host} slots = {slots}",
                    f"{host}",
                    f"{host} slots={slots} max_slots=8",
                )
            )
        )
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")
