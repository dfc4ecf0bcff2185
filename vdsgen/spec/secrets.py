"""Keys and variables that hold secrets, known by their names: where others can read, their values are not."""

from __future__ import annotations

import re

_WORDS = (
    r"api_?key|access_?key|secret|token|password|passwd|passphrase|credentials?|private_?key"
    r"|auth(?:orization)?"
)
_NAME = re.compile(rf"(?:^|.*[_.-])(?:{_WORDS})(?:[_.-].*)?", re.IGNORECASE)
_CREDENTIALS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^/\s@:]*:[^/\s@]+@")
"""A URL with a user's password in it."""
_WRITTEN = re.compile(
    rf"""(["']?\b(?:\w*[_.-])?(?:{_WORDS})(?:_id|_file)?["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;}}\]"']+)""",
    re.IGNORECASE,
)
"""A key of such a name in JSON, YAML or a shell's assignment, and its value."""


def is_secret_name(name: str) -> bool:
    """`WANDB_API_KEY`, `HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`, `api_key`."""
    return _NAME.fullmatch(name) is not None


def has_credentials(text: str) -> bool:
    """Whether a URL in it has a password."""
    return _CREDENTIALS.search(text) is not None


def is_secret(name: str, value: str) -> bool:
    return is_secret_name(name) or has_credentials(value)


def masked(text: str) -> str:
    """The same text, as long, with asterisks in the place of what keys of such names have as their values."""

    def starred(match: re.Match[str]) -> str:
        value = match[2]
        if value in ("null", "None", "true", "false", '""', "''"):
            return match[0]
        quote = value[0] if value[0] in "\"'" else ""
        return f"{match[1]}{quote}{'*' * (len(value) - 2 * len(quote))}{quote}"

    return _WRITTEN.sub(starred, text)
