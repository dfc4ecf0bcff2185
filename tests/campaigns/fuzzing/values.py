"""Values that are in nobody's example: names a shell would obey, numbers at every edge, odd text."""

from __future__ import annotations

import random
from typing import Any

CANARY = "canary"
"""A file of this name appears where a shell obeyed a name."""
SHELL = (
    f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY};", f"x;touch {CANARY};#", f"a\ntouch {CANARY}\n",
    f"a && touch {CANARY}", f"'; touch {CANARY}; '", f'"; touch {CANARY}; "', f"| touch {CANARY}", f"$({CANARY}",
    f"-oProxyCommand=touch {CANARY}", "--help", "-rf", "$HOME", "${IFS}", "~", "~root", "*", "?", "[a-z]", "a b",
    " a", "a ", "'", '"', "\\", "\\n", "a'b\"c", "#", "!", "&", "%j", "%s%n%x", "%", "{{ 7*7 }}", "{% raw %}",
    "{{ cycler.__init__ }}", f"a$(touch {CANARY})b", f"$'\\x24(touch {CANARY})'", "$((1+1))", "<(id)", ">x", "2>&1",
)  # fmt: skip
PATHS = (
    "..", "../..", "../escape", "../../../../../../tmp/escape", "/", "/dev/null", "/dev/zero", "/proc/self/mem",
    "/etc/passwd", "/nonexistent/x", ".", "./", "a/../../escape", "a//b", "out/../../escape", "a" * 300, "a/" * 3000,
    "x" * 5000, "file:///etc/passwd", "https://user:secret@host/x", "\\\\host\\share", "C:\\x", "link", "pipe", "loop",
)  # fmt: skip
TEXTS = (
    "", " ", "\t", "\n", "\r\n", "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "\x07", "\x7f", "\u0085", "\u2028", "\u202e",
    "\ufeff", "\u00e9", "\u00df", "\u0130", "\u0661\u0662", "\u4e2d\u6587", "\U0001f4a9", "a" * 65, "a" * 1000,
    "yes", "no", "on", "off", "null", "~", "true", "1", "0x10", "0o17", "017", "1_000", "1:30:00", "1e3", "1e-4",
    ".inf", ".nan", "-.inf", "2026-01-01", "<<", "=", "auto", "inf", "None", "localhost", "user@host", "a:b", "a: b",
    "host^x", "127.0.0.1", "::1", "-", "- a", "? a", "&a", "*a", "!x", "!!str a", "|", ">", "[", "{", "]", "@a", "`a",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 5, 7, 10, 64, 255, 256, 1000, 1023, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63,
    2**64, 10**6, 10**9, 10**15, 10**15 + 1, 10**18, 10**40, -(2**63), 0.0, -0.0, 0.1, 0.5, 0.999999, 1.0, 1.5, 3.7,
    1e-30, 1e-308, 5e-324, 1e15, 1e16, 1e100, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), True, False,
    None,
)  # fmt: skip


def text(rng: random.Random) -> str:
    """Hostile or odd."""
    chosen = rng.choice((SHELL, PATHS, TEXTS))
    found = rng.choice(chosen)
    if rng.random() < 0.05:
        found += rng.choice(chosen)
    if rng.random() < 0.05:
        found = "".join(
            chr(rng.choice((rng.randrange(32), rng.randrange(0x250), rng.randrange(0x11000))))
            for _ in range(8)
        )
        found = found.encode("utf-8", "replace").decode()
    return found


def number(rng: random.Random) -> Any:
    return (
        rng.choice(NUMBERS)
        if rng.random() < 0.8
        else rng.randrange(-(10 ** rng.randrange(20)), 10 ** rng.randrange(20) + 1)
    )


def scalar(rng: random.Random) -> Any:
    return text(rng) if rng.random() < 0.6 else number(rng)


def any_value(rng: random.Random, keys: tuple[str, ...] = ("a",), depth: int = 2) -> Any:
    """Of any type, nested a little."""
    kind = rng.random()
    if depth == 0 or kind < 0.75:
        return scalar(rng)
    size = rng.choice((0, 1, 1, 2, 3))
    if kind < 0.87:
        return [any_value(rng, keys, depth - 1) for _ in range(size)]
    return {rng.choice(keys): any_value(rng, keys, depth - 1) for _ in range(size)}
