"""Secrets that stand in the file: whoever reads the repository reads them."""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.review.lint.document import Document, Node, Path
from vdsgen.review.lint.finding import Finding, finding_at
from vdsgen.spec.secrets import has_credentials, is_secret_name


def secrets_in(document: Document) -> list[Finding]:
    """Keys with the name of a secret, and URLs with a password. The message does not repeat them."""
    return [
        finding_at(
            document, path, "secret-in-file", "warning",
            f"{path[-1]} holds a secret, and config files are committed, rendered and logged",
            remedy="take it out: monitors read theirs from the environment (WANDB_API_KEY, COMET_API_KEY); a "
            "secret "
            "that was committed is to be replaced", at_key=True,
        )
        for path, value in _texts(document.root, ())
        if value and (is_secret_name(str(path[-1])) or has_credentials(value))
    ]  # fmt: skip


def _texts(node: Node, path: Path) -> Iterator[tuple[Path, str]]:
    waiting = [(node, path)]
    while waiting:
        one, at = waiting.pop()
        if isinstance(one.value, str) and at:
            yield at, one.value
        waiting += [(entry.value, (*at, entry.key)) for entry in one.entries or []]
        waiting += [(item, (*at, index)) for index, item in enumerate(one.items or [])]
