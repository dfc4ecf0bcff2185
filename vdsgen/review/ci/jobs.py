"""The files that make a CI service review configurations."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Literal

from vdsgen import __version__

Service = Literal["github", "gitlab"]
FILES: Mapping[Service, Mapping[str, str]] = {
    "github": {
        ".github/workflows/vdsgen-review.yml": "github-review.yml",
        ".github/workflows/vdsgen-comment.yml": "github-comment.yml",
    },
    "gitlab": {".gitlab/vdsgen.yml": "gitlab.yml"},
}
"""Where each lies in a repository -> the file beside this module that it is rendered from."""


def job_files(service: Service) -> dict[str, str]:
    """Path in a repository -> text, which installs this very version."""
    folder = importlib.resources.files(__package__)
    return {
        path: (folder / name).read_text("utf-8").replace("vdsgen==VERSION", f"vdsgen=={__version__}")
        for path, name in FILES[service].items()
    }
