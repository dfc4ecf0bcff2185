"""A capture of torch's profiler over a few steps, for Perfetto or chrome://tracing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.spec.run import PROFILE_REQUEST, PROFILES
from vdsgen.spec.steps import Steps, parse_steps


def take_request(run: Path, next_step: int, name: str = PROFILE_REQUEST) -> Steps | None:
    """What RUN/profile-request, or another of that kind, asks for, and removes it; None where there is none,
    or it says nothing that can be done. Rank 0 alone reads it."""
    path = run / name
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:100]
        path.unlink()
    except OSError:
        return None
    try:
        asked = parse_steps(text) if text.strip() else Steps(next_step, next_step)
    except VdsgenError:
        return None
    # What is past already starts with the next step, for as many steps.
    late = max(0, next_step - asked.first)
    return Steps(asked.first + late, asked.last + late)


class Tracer:
    """Of one rank. Spans and layers cost nothing while nothing is captured."""

    def __init__(self) -> None:
        self.running = False
        self.steps: Steps | None = None
        """What is asked for."""
        self._profile: Any = None
        self._open: list[Any] = []

    def watch(self, indices: Sequence[int], layers: Sequence[nn.Module]) -> None:
        """Each layer's forward becomes a span of its own."""
        for index, layer in zip(indices, layers, strict=True):
            name = f"layer {index}: {type(layer).__name__}"

            def before(_: nn.Module, __: Any, name: str = name) -> None:
                if self._marks_layers():
                    span = record_function(name)
                    span.__enter__()  # type: ignore[no-untyped-call]
                    self._open.append(span)

            def after(_: nn.Module, __: Any, ___: Any) -> None:
                if self._marks_layers() and self._open:
                    self._open.pop().__exit__(None, None, None)

            layer.register_forward_pre_hook(before)
            layer.register_forward_hook(after)

    def _marks_layers(self) -> bool:
        """Not in a recomputation, which may stop in the middle of a layer."""
        return self.running and torch._C._current_graph_task_id() == -1

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        with record_function(name):
            yield

    def step_begins(self, step: int) -> None:
        if self.steps is None or self.running or step not in self.steps:
            return
        activities = [ProfilerActivity.CPU]
        if get_accelerator().device_name() == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)
        self._profile.start()
        self.running = True

    def step_ends(self, step: int, run: Path, rank: int) -> Path | None:
        """The file that was written, where this was the last step of a capture."""
        if not self.running or self.steps is None or step < self.steps.last:
            return None
        self.running = False
        self._profile.stop()
        path = trace_file(run, self.steps, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished_{path.name}")
        self._profile.export_chrome_trace(str(unfinished))
        unfinished.replace(path)
        self._profile = self.steps = None
        return path


def trace_file(run: Path, steps: Steps, rank: int) -> Path:
    return run / PROFILES / f"step-{steps.first:08d}-to-{steps.last:08d}" / f"rank_{rank:05d}.json.gz"


def ask(run: Path, steps: Steps) -> None:
    """Writes RUN/profile-request."""
    write_atomically(run / PROFILE_REQUEST, f"{steps}\n".encode())
