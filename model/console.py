"""What a rank says to people. Everything else that ends up in its log is chatter."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from vdsgen.spec.run import MESSAGE, STEP


def say(text: str) -> None:
    """Every line of `text`, marked, so that `vdsgen launch` finds it in the rank's log."""
    print("\n".join(MESSAGE + line for line in text.splitlines()), flush=True)


def say_first(text: str) -> None:
    """The same, from rank 0 alone."""
    if is_first_rank():
        say(text)


def say_step(text: str) -> None:
    """A line of progress; on a terminal a bar stands for it."""
    print(STEP + text, flush=True)


def is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


class _MessageHandler(logging.Handler):
    """Warnings of this package, each once a rank."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            say(f"{record.levelname.lower()}: {text}")


def configure_logging() -> None:
    """This package's log records become messages; other libraries' warnings go to the log, once each."""
    logger = logging.getLogger("vdsgen")
    logger.handlers = [_MessageHandler()]
    logger.propagate = False
    warnings.simplefilter("once")
    for category in (DeprecationWarning, FutureWarning):
        # Of torch and DeepSpeed about each other; a log is read for its last lines.
        warnings.simplefilter("ignore", category)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
