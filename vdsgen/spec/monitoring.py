"""Where a run's metrics go, and what it warns of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vdsgen.spec.base import LARGEST, Name, NonNegativeInt, PositiveInt, Spec

Factor = Annotated[float, Field(gt=1, le=LARGEST)]


class WeightsAndBiases(Spec):
    """Metrics to Weights & Biases, through DeepSpeed's monitor. The key is never in a file: it comes from
    `wandb login` or WANDB_API_KEY."""

    project: Name
    group: Name | None = None
    team: Name | None = None


class Comet(Spec):
    """Metrics to Comet, through DeepSpeed's monitor. The key is never in a file: it comes from Comet's own
    configuration or COMET_API_KEY."""

    project: Name
    workspace: Name | None = None
    experiment_name: Name | None = None
    online: bool = True
    """Else into an offline archive, for `comet upload`."""
    samples_log_interval: PositiveInt = 1
    """Clips between two values of a metric; 1: every step."""


class Monitoring(Spec):
    """Who gets every step's metrics besides metrics.jsonl. Events are at the number of clips seen so far, as
    DeepSpeed's own are."""

    tensorboard: bool = False
    """Through DeepSpeed's monitor, with its own events. Without it the trainer writes RUN/tensorboard itself,
    at the number of the step."""
    csv: bool = False
    """A file a metric in RUN/csv."""
    wandb: WeightsAndBiases | None = None
    comet: Comet | None = None


class Alarms(Spec):
    """What a run warns of. Each alarm names the step, and where it can the layer, its stage and its rank."""

    layers: bool = True
    """Watch each layer's output and gradients, so that alarms can name the layer."""
    loss_spike_deviations: Factor | None = 12.0
    """Robust standard deviations (1.4826 x the median absolute deviation) of the loss above its median over
    `loss_window` steps. A loss counts only where it is 1.5 x the median besides. None: no alarm."""
    loss_window: Annotated[int, Field(ge=8, le=100_000)] = 100
    """Finite losses that median and deviation are of."""
    loss_scale_halvings: PositiveInt | None = 4
    """Times that the fp16 loss scale is halved without having grown in between; that it is at its minimum is
    told besides. None: no alarm."""
    gradient_drift_factor: Factor | None = 4.0
    """The median gradient norm of the last 25 steps against the median of the `gradient_window` before.
    None: no alarm."""
    gradient_window: Annotated[int, Field(ge=50, le=100_000)] = 500
    """Steps; the alarm sounds from 100 on, or this many where it is less."""
    memory_leak_window: Annotated[int, Field(ge=16, le=1_000)] | None = 64
    """Steps over which memory that is held between steps has to grow. None: no alarm."""
    memory_leak_bytes_per_step: NonNegativeInt = 64 * 1024
    """Less growth than this is no leak."""
