"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tensors in tests are tiny: more threads only wait for each other. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long one example takes on a busy machine is no property of the code.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def demo_clips() -> Path:
    """The folder with the demo's real clips; skips where they cannot be fetched."""
    pytest.importorskip("av")
    from tests.clips import real_clips
    from vdsgen.errors import VdsgenError

    try:
        return real_clips()
    except VdsgenError as error:
        pytest.skip(f"no real clips: {error.message}")
