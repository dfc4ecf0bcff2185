"""What a run warns of: each alarm watches one thing, and says one sentence to people."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vdsgen.files import write_atomically
from vdsgen.model.json_lines import read_lines
from vdsgen.model.monitoring.robust import median_and_deviation, theil_sen
from vdsgen.spec.run import ALARMS

Kind = Literal["not_finite", "overflow", "loss_spike", "loss_scale", "gradient_drift", "memory_leak"]

SPIKE_FACTOR = 1.5
FEWEST_LOSSES = 20
"""Before so many losses nothing is known of their spread."""
RECENT_STEPS = 25
"""Whose median gradient norm is compared with the steps before."""
FEWEST_NORMS = 100
QUIET_STEPS = 25
"""After an alarm, steps before the same one may sound again."""
LEAK_AGREEMENT = 0.85
"""Of a leak's pairs of steps so many grow; of noise about a half."""
LEAK_ABOVE_NOISE = 3.0
"""How many robust deviations from its own line a leak's growth over the window is."""
SPOKEN_OVERFLOWS = 5
"""Overflows told to people, one by one; all are in alarms.jsonl."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model."""

    layer: int
    name: str
    stage: int
    rank: int | None = None

    def __str__(self) -> str:
        rank = "" if self.rank is None else f", rank {self.rank}"
        return f"layer {self.layer} ({self.name}), stage {self.stage}{rank}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One warning. `value` is what was found, in the unit that `message` says."""

    kind: Kind
    step: int
    message: str
    remedy: str
    value: float | None = None
    place: Place | None = None
    rank: int | None = None

    def sentence(self) -> str:
        return f"{self.message}: {self.remedy}"

    def line(self) -> str:
        values = asdict(self)
        place = values.pop("place") or {}
        values |= {key: place.get(key) for key in ("layer", "stage")} | {"layer_name": place.get("name")}
        if values["rank"] is None:
            values["rank"] = place.get("rank")
        if values["value"] is not None and not math.isfinite(values["value"]):
            values["value"] = None
        return json.dumps(values, allow_nan=False) + "\n"


class LossSpike:
    """A loss far above what the last ones scatter around."""

    def __init__(self, deviations: float, window: int) -> None:
        self.deviations = deviations
        self._losses: deque[float] = deque(maxlen=window)
        self._quiet_until = 0

    def check(self, step: int, loss: float, loudest: Place | None) -> Alarm | None:
        """`loudest`: the layer whose share of the gradient is most above its usual one."""
        if not math.isfinite(loss):
            return None
        alarm = None
        if len(self._losses) >= min(FEWEST_LOSSES, self._losses.maxlen or 0):
            middle, deviation = median_and_deviation(self._losses)
            limit = max(middle + self.deviations * deviation, SPIKE_FACTOR * middle)
            if loss > limit and step >= self._quiet_until:
                self._quiet_until = step + QUIET_STEPS
                alarm = Alarm(
                    "loss_spike",
                    step,
                    f"step {step}: the loss jumped to {loss:.4g}, {loss / middle:.1f} x its median over "
                    f"{len(self._losses)} steps ({middle:.4g}){_loudest(loudest)}",
                    "look at the step's clips, lower training.optimizer.learning_rate or "
                    "training.gradient_clipping; --resume goes back to the last checkpoint",
                    loss,
                    loudest,
                )
        self._losses.append(loss)
        return alarm


class VanishingScale:
    """The fp16 loss scale only ever shrinks, or is as small as it may get."""

    def __init__(self, halvings: int, minimum: float) -> None:
        self.halvings, self.minimum = halvings, minimum
        self._last: float | None = None
        self._halved = 0
        self._told_minimum = False

    def check(self, step: int, scale: float, place: Place | None) -> Alarm | None:
        """`scale`: after the step. `place`: where its last overflow began, if known."""
        last, self._last = self._last, scale
        if last is None or scale == last:
            return None
        if scale > last:
            self._halved, self._told_minimum = 0, False
            return None
        self._halved += max(1, round(math.log2(last / scale)))
        at_minimum = scale <= self.minimum and not self._told_minimum
        if self._halved < self.halvings and not at_minimum:
            return None
        halved, self._halved = self._halved, 0
        self._told_minimum |= at_minimum
        where = "" if place is None else f", last by {place}"
        how = "its minimum" if scale <= self.minimum else f"halved {halved} times without growing once"
        return Alarm(
            "loss_scale",
            step,
            f"step {step}: the fp16 loss scale is {scale:g}, {how}{where}",
            "gradients that small round to zero in fp16: train in bf16 or fp32, or lower "
            "training.optimizer.learning_rate",
            scale,
            place,
        )


class GradientDrift:
    """The gradient norm has grown slowly, by a factor."""

    def __init__(self, factor: float, window: int) -> None:
        self.factor = factor
        self._norms: deque[float] = deque(maxlen=window + RECENT_STEPS)
        self._fewest = min(FEWEST_NORMS, window)
        self._sounded = False

    def check(self, step: int, norm: float, loudest: Place | None) -> Alarm | None:
        if not math.isfinite(norm):
            return None
        self._norms.append(norm)
        norms = list(self._norms)
        before, recent = norms[:-RECENT_STEPS], norms[-RECENT_STEPS:]
        if len(before) < self._fewest:
            return None
        usual, now = statistics.median(before), statistics.median(recent)
        if usual <= 0 or now < self.factor / 2 * usual:
            self._sounded = False
        if usual <= 0 or now <= self.factor * usual or self._sounded:
            return None
        self._sounded = True
        return Alarm(
            "gradient_drift",
            step,
            f"step {step}: the gradient norm has drifted to {now:.3g} (median of {RECENT_STEPS} steps), "
            f"{now / usual:.1f} x that of the {len(before)} steps before ({usual:.3g}){_loudest(loudest)}",
            "lower training.optimizer.learning_rate or lengthen the warm-up before the loss follows",
            now,
            loudest,
        )


class MemoryLeak:
    """Memory of one rank that is held between steps grows steadily, and is used up before the run ends."""

    def __init__(self, rank: int, window: int, least_bytes_per_step: float, last_step: int) -> None:
        self.rank, self.least, self.last_step = rank, least_bytes_per_step, last_step
        self._held: deque[int] = deque(maxlen=window)
        self._looked = 0
        self._quiet_until = 0

    def check(self, step: int, held_bytes: int, free_bytes: int) -> Alarm | None:
        """Looks once in a quarter of its window. `free_bytes`: what the device, or the host, has left."""
        self._held.append(held_bytes)
        window = self._held.maxlen or 0
        self._looked += 1
        if len(self._held) < window or self._looked % max(1, window // 4) or step < self._quiet_until:
            return None
        values = list(self._held)
        quarter = window // 4
        grown_roughly = statistics.median(values[-quarter:]) - statistics.median(values[:quarter])
        if grown_roughly < self.least * window / 2:
            return None  # as nearly always: without looking at all pairs
        lately = statistics.median(values[-quarter:]) - statistics.median(values[-2 * quarter : -quarter])
        if lately < self.least * quarter / 2:
            return None  # a heap that has found its size: it grew, and grows no more
        slope, agreement = theil_sen(values)
        line = [value - slope * place for place, value in enumerate(values)]
        _, noise = median_and_deviation(line)
        grown = slope * (window - 1)
        if slope <= self.least or agreement < LEAK_AGREEMENT or grown < LEAK_ABOVE_NOISE * noise:
            return None
        left = math.floor(free_bytes / slope)
        if step + left > self.last_step:
            return None
        self._quiet_until = step + 4 * window
        return Alarm(
            "memory_leak",
            step,
            f"step {step}: memory held by rank {self.rank} grows by {slope / 2**20:.2f} MiB a step "
            f"({grown / 2**20:.0f} MiB over {window} steps); out of memory in about {left:,} steps",
            "look for tensors kept from step to step (losses, caches); checkpoints let the run go on "
            "with --resume",
            slope,
            rank=self.rank,
        )


class LayerShares:
    """Each layer's share of the squared gradient, and which one is most above its usual share."""

    def __init__(self, window: int = 100) -> None:
        self._shares: deque[list[float]] = deque(maxlen=window)

    def loudest(self, squares: Sequence[float]) -> tuple[int, float] | None:
        """(layer, its share now) of this step's squares by layer. Compares by ratio, of the layers that make
        up a twentieth of the gradient or more."""
        total = sum(squares)
        if not math.isfinite(total) or total <= 0:
            return None
        now = [square / total for square in squares]
        earlier = list(self._shares)
        self._shares.append(now)
        if len(earlier) < RECENT_STEPS:
            return max(enumerate(now), key=lambda pair: pair[1])
        usual = [statistics.median(shares) for shares in zip(*earlier, strict=True)]
        fewest = min(0.05, max(now))
        grown = [(now[i] / max(usual[i], 1e-12), i) for i in range(len(now)) if now[i] >= fewest]
        place = max(grown)[1]
        return place, now[place]


def _loudest(place: Place | None) -> str:
    return "" if place is None else f", the gradient's share grew most in {place}"


class AlarmFile:
    """RUN/alarms.jsonl: there once something was warned of."""

    def __init__(self, run: Path, *, resumed_step: int) -> None:
        """Drops what an interrupted run warned of past the step that it is resumed from."""
        self._path = run / ALARMS
        if self._path.is_file():
            kept = [alarm for alarm in read_alarms(run) if int(str(alarm["step"])) <= resumed_step]
            text = "".join(json.dumps(alarm) + "\n" for alarm in kept)
            write_atomically(self._path, text.encode())

    def append(self, alarm: Alarm) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(alarm.line())


def read_alarms(run: Path) -> list[dict[str, object]]:
    """Every alarm of a run, in order; [] where there was none."""
    return list(read_lines(run / ALARMS))
