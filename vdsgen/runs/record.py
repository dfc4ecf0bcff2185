"""run.json of a run directory: what runs, on what, and every start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vdsgen.runs.values import mapping, mappings, text, whole
from vdsgen.spec.run import Layout

STOPPED = "stopped by "
"""Begins how a start ended that somebody stopped (vdsgen.launch.restarts)."""


@dataclass(frozen=True, slots=True)
class Start:
    """Of a run: the first, a restart, or one that was resumed."""

    at: str | None
    """ISO 8601, UTC."""
    from_step: int | None
    """The last step before it; None where it ended before it came so far."""
    plan: str | None
    """Folder of the run directory."""
    end: str | None
    """How it ended, where it ended badly."""
    ended_at: str | None
    reached_step: int | None

    @property
    def was_stopped(self) -> bool:
        """By somebody, not by a fault."""
        return self.end is not None and self.end.startswith(STOPPED)


@dataclass(frozen=True, slots=True)
class RunRecord:
    versions: Mapping[str, str]
    accelerator: str | None
    devices: tuple[str, ...]
    """Of each rank."""
    world_size: int | None
    layout: Layout | None
    steps: int | None
    clips: int | None
    """That can be trained on."""
    starts: tuple[Start, ...]

    @property
    def on_processors(self) -> bool:
        return self.accelerator == "cpu"


def record_of(values: Mapping[str, Any]) -> RunRecord:
    """Whatever can be read; what is of another kind than it should be is left out."""
    versions = {
        name: found
        for name, value in mapping(values.get("versions")).items()
        if (found := text(value)) is not None and name.isidentifier()
    }
    devices = values.get("devices")
    return RunRecord(
        versions=versions,
        accelerator=text(values.get("accelerator")),
        devices=tuple(text(name) or "?" for name in devices) if isinstance(devices, list) else (),
        world_size=whole(values.get("world_size")),
        layout=_layout(values.get("layout")),
        steps=whole(values.get("steps")),
        clips=whole(mapping(values.get("clips")).get("usable")),
        starts=tuple(map(_start, mappings(values.get("starts")))),
    )


def _layout(values: Any) -> Layout | None:
    try:
        return Layout.model_validate_json(json.dumps(values))
    except (ValidationError, ValueError, RecursionError):
        return None


def _start(values: Mapping[str, Any]) -> Start:
    return Start(
        at=text(values.get("at")),
        from_step=whole(values.get("from_step")),
        plan=text(values.get("plan")),
        end=text(values.get("end")),
        ended_at=text(values.get("ended_at")),
        reached_step=whole(values.get("reached_step")),
    )
