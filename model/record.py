"""What a run leaves in its directory besides checkpoints: run.json, metrics, TensorBoard events."""

from __future__ import annotations

import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from deepspeed import __version__ as deepspeed_version
from deepspeed.accelerator import get_accelerator

from vdsgen import __version__
from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model.agreement import everybodys
from vdsgen.model.configuration import Configuration
from vdsgen.model.console import is_first_rank, say, say_first, say_step
from vdsgen.model.data.index import Index
from vdsgen.model.json_lines import LinesFile
from vdsgen.model.metrics import MetricsFile, StepMetrics
from vdsgen.model.monitoring.events import scalars, write_events, writes_tensorboard
from vdsgen.model.validation import FILE as VALIDATION_FILE
from vdsgen.model.validation import ValidationMetrics
from vdsgen.spec.run import SIZE_UNITS, TENSORBOARD, read_json_object
from vdsgen.spec.run_plans import record_plan

LINES = 50
"""Progress lines of a long run, about."""
MOST_SECONDS_BETWEEN_LINES = 30.0


def record_run(configuration: Configuration, index: Index, from_step: int) -> None:
    """Writes run.json: what runs, on what. A resumed run adds its start to those before. Collective.

    Warns where the clips are others than those the run was begun with.
    """
    devices = everybodys(_device_name)
    if not is_first_rank():
        return
    path = configuration.output / "run.json"
    # A run that starts anew in the same directory is one that failed before its first checkpoint.
    before = _earlier(path)
    clips = {"usable": len(index.entries), "skipped": len(index.skipped), "fingerprint": index.fingerprint}
    if configuration.resume and before.get("clips", clips)["fingerprint"] != index.fingerprint:
        say_first("warning: the clips are not those that this run was begun with: the order of clips changes")
    rendered = configuration.rendered
    start = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": from_step,
        "layout": str(rendered.layout),
        "plan": str(record_plan(configuration.output, rendered.path).relative_to(configuration.output)),
    }
    content = {
        "schema_version": 1,
        "versions": {
            "vdsgen": __version__,
            "torch": str(torch.__version__),
            "deepspeed": deepspeed_version,
            "python": platform.python_version(),
        },
        "accelerator": get_accelerator().device_name(),
        "devices": devices,
        "world_size": rendered.layout.world_size,
        "layout": rendered.layout.model_dump(mode="json"),
        "plan_sha256": rendered.plan_sha256,
        "rendered": str(rendered.path),
        "steps": configuration.steps,
        **_size_units(configuration),
        "clips": clips,
        "starts": [*before.get("starts", []), start],
    }
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def begun_under_this_plan(run: Path) -> int:
    """The step after which the present plan's steps began: of those starts after which no other came, the
    first."""
    starts = _earlier(run / "run.json").get("starts") or [{"from_step": 0}]
    begun = int(starts[-1]["from_step"])
    for start in reversed(starts):
        if start.get("plan") != starts[-1].get("plan"):
            break
        begun = int(start["from_step"])
    return begun


def _size_units(configuration: Configuration) -> dict[str, int]:
    """Where clips of several sizes take turns within a step: a later layout keeps to the same turns."""
    data = configuration.rendered.experiment.data
    if len(data.sizes) == 1 or data.bucket_every != "micro_batch":
        return {}
    return {SIZE_UNITS: configuration.size_units_a_step}


def _earlier(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except VdsgenError:
        return {}


def _device_name() -> str:
    """The accelerator's name; a processor's from the kernel."""
    if get_accelerator().device_name() != "cpu":
        return str(torch.get_device_module().get_device_name())
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


class RunLog:
    """Every step's metrics, on rank 0: into metrics.jsonl, TensorBoard and now and then a line of text."""

    def __init__(self, configuration: Configuration, resumed_step: int, engine: Any) -> None:
        """`engine`: DeepSpeed's, whose monitor gets the metrics too."""
        from torch.utils.tensorboard import SummaryWriter

        run = configuration.output
        self._engine = engine
        self._steps = configuration.steps
        self._metrics = MetricsFile(run, resumed_step=resumed_step)
        self._events = None
        if not writes_tensorboard(configuration.rendered.ds_config):
            self._events = SummaryWriter(str(run / TENSORBOARD), purge_step=resumed_step + 1)
        self._validation: LinesFile | None = None
        if configuration.rendered.experiment.training.validation is not None:
            self._validation = LinesFile(run / VALIDATION_FILE, resumed_step=resumed_step)
        self._said_at = 0.0

    def append(self, metrics: StepMetrics) -> None:
        self._metrics.append(metrics)
        for name, value in scalars(metrics).items():
            self._scalar(name, value, metrics.step)
        write_events(self._engine.monitor, metrics, int(self._engine.global_samples))
        if self._is_due(metrics.step):
            self._said_at = time.monotonic()
            say_step(self._line(metrics))

    def _scalar(self, name: str, value: float, step: int) -> None:
        """Into our own TensorBoard files, where the engine's monitor writes none."""
        if self._events is not None:
            self._events.add_scalar(name, value, step)

    def append_validation(self, metrics: ValidationMetrics) -> None:
        assert self._validation is not None, "the experiment holds no clips out"
        self._validation.write(metrics.line())
        name = "validation" if metrics.weights == "trained" else f"validation_{metrics.weights}"
        losses = {f"{name}/loss": metrics.loss}
        for quantile, loss in zip(metrics.quantiles, metrics.loss_by_quantile, strict=True):
            losses[f"{name}/loss_at_quantile_{quantile:g}"] = loss
        for key, loss in losses.items():
            self._scalar(key, loss, metrics.step)
        if self._engine.monitor.enabled:
            seen = int(self._engine.global_samples)
            self._engine.monitor.write_events([(key, loss, seen) for key, loss in losses.items()])
        of = "" if metrics.weights == "trained" else f" of the {metrics.weights.upper()} weights"
        say(
            f"step {metrics.step}: held-out loss{of} {metrics.loss:.4f} "
            f"({metrics.clips} clips x {len(metrics.quantiles)} noise levels, {metrics.seconds:.1f} s)"
        )

    def _is_due(self, step: int) -> bool:
        late = time.monotonic() - self._said_at > MOST_SECONDS_BETWEEN_LINES
        return step in (1, self._steps) or step % max(1, self._steps // LINES) == 0 or late

    def _line(self, metrics: StepMetrics) -> str:
        return (
            f"step {metrics.step}/{self._steps}  loss {metrics.loss:.4f}  "
            f"gradient norm {metrics.grad_norm:.3f}  learning rate {metrics.learning_rate:.2e}  "
            f"{metrics.step_seconds:.2f} s  {metrics.samples_per_second:.2f} samples/s  "
            f"{metrics.data_seconds / metrics.step_seconds:.0%} waiting for clips"
            + (f"  overflow, skipped (loss scale {metrics.loss_scale:g})" if metrics.overflow else "")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        if self._validation is not None:
            self._validation.close()
        if self._events is not None:
            self._events.close()
