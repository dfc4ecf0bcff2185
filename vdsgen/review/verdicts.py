"""What a reviewer asks first: does the loss curve change, can a run go on, and what of the learning rate?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vdsgen.review.absent import ABSENT
from vdsgen.review.changes import Change
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.effect import CURVES, Curve
from vdsgen.review.effective import BATCH, EffectiveConfig
from vdsgen.review.engine_changes import batch_ratio
from vdsgen.review.resume import Resuming, of_configs, of_directories
from vdsgen.review.side import DS_CONFIG, Side

ORDER_OF_RANKS = frozenset(
    {"ds_config.json:zero_optimization.reduce_bucket_size", "ds_config.json:zero_optimization.reduce_scatter"}
)
"""Change in which order ranks' gradients are added up: of two ranks, sums are the same either way."""


@dataclass(frozen=True, slots=True)
class ScaledRate:
    """What scaling rules make of OLD's learning rate, where the effective batch changed."""

    batch_ratio: float
    linear: float | None
    """In proportion to the batch: for SGD (Goyal et al. 2017, arXiv 1706.02677)."""
    square_root: float | None
    """In proportion to its root: for Adam (Malladi et al. 2022, arXiv 2205.10287; Krizhevsky 2014, arXiv
    1404.5997, first for SGD)."""
    old: float | None
    new: float | None
    """The learning rates' peaks as they are."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """See CURVES, Resuming and ScaledRate."""

    loss_curve: Curve
    loss_curve_because: tuple[str, ...]
    resume: Resuming
    learning_rate: ScaledRate | None


def verdicts(
    old: Side, new: Side, configs: tuple[EffectiveConfig, EffectiveConfig], changes: Sequence[Change]
) -> Verdicts:
    curve, because = loss_curve(changes, configs)
    if isinstance(old, RenderedDirectory) and isinstance(new, RenderedDirectory):
        resume = of_directories(old, new, {change.name for change in changes if change.affects})
    else:
        resume = of_configs(*configs)
    return Verdicts(curve, because, resume, scaled_rate(*configs))


def loss_curve(
    changes: Sequence[Change], configs: tuple[EffectiveConfig, EffectiveConfig]
) -> tuple[Curve, tuple[str, ...]]:
    """The most that any change does, and the changes that do as much."""
    few_ranks = all(config.ranks is not None and config.ranks <= 2 for config in configs)

    def curve_of(change: Change) -> Curve:
        return "identical" if few_ranks and change.name in ORDER_OF_RANKS else change.curve

    most = max((CURVES.index(curve_of(change)) for change in changes), default=0)
    if most == 0:
        return "identical", ()
    all_of_it = [change for change in changes if curve_of(change) == CURVES[most]]
    own = [change for change in all_of_it if change.follows_from is None]
    return CURVES[most], tuple(name for change in own or all_of_it for name in _names(change, changes))


def _names(change: Change, changes: Sequence[Change]) -> list[str]:
    """The change, or where nobody wrote the whole batch, what makes it another."""
    if change.name != f"{DS_CONFIG}:{BATCH[0]}" or not change.old is change.new is ABSENT:
        return [change.name]
    factors = [f"{DS_CONFIG}:{key}" for key in BATCH[1:]]
    return [one.name for one in changes if one.name in factors and one.affects] or [change.name]


def scaled_rate(old: EffectiveConfig, new: EffectiveConfig) -> ScaledRate | None:
    ratio = batch_ratio(old, new)
    if ratio is None or ratio == 1:
        return None
    rate = old.rate
    linear, root = (None, None) if rate is None else (rate * ratio, rate * math.sqrt(ratio))
    return ScaledRate(ratio, linear, root, rate, new.rate)
