"""Runs the planning commands of docs/labs.md again and writes what they print into it.

    python -m tests.update_labs

Blocks are those of the README: see tests/update_readme.py.
"""

from __future__ import annotations

import os

from tests.update_readme import ROOT, fresh

PAGE = ROOT / "docs" / "labs.md"

if __name__ == "__main__":
    os.chdir(ROOT)
    PAGE.write_text(fresh(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
