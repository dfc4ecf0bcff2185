"""Rules on fp16's loss scale."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import are, below, present, removal, setting
from vdsgen.rules.rule import REMOVE, Rule

SCALE = "/fp16/loss_scale"
POWER = "/fp16/initial_scale_power"
LARGEST_POWER, LARGEST_POWER_UNDER_ZERO = 1023, 63
"""Of two: in the float that divides gradients without ZeRO (runtime/fp16/unfused_optimizer.py:248), and in
the whole number that ZeRO multiplies a tensor with, which torch takes as 64 bits."""
WINDOW = "/fp16/loss_scale_window"
LEAST = "/fp16/min_loss_scale"
HYSTERESIS = below("/fp16", "hysteresis consecutive_hysteresis")
OF_DYNAMIC_SCALE = (POWER, WINDOW, LEAST, *HYSTERESIS)

ARTICLES_POWER = 9
MOST_POWER = 12
"""Largest power of two to start from. A choice of this project: three halvings above the article's 2^9,
four below the engine's default of 2^16. Each halving that a model turns out to need is a skipped step."""


def _is_dynamic(facts: Facts) -> bool:
    return bool(facts.fp16_enabled) and facts.precision.loss_scale == 0


def _is_not_negative(facts: Facts) -> str | None:
    scale = facts.precision.loss_scale
    return f"fp16.loss_scale is {scale:g}" if scale is not None and scale < 0 else None


def _window_is_positive(facts: Facts) -> str | None:
    window = facts.precision.loss_scale_window
    if window is None or window > 0 or not _is_dynamic(facts):
        return None
    return f"fp16.loss_scale_window is {window}"


def _least_is_positive(facts: Facts) -> str | None:
    least, window = facts.precision.min_loss_scale, facts.precision.loss_scale_window
    if least is None or least > 0 or not _is_dynamic(facts) or (window is not None and window <= 0):
        return None
    return f"fp16.min_loss_scale is {least}"


def _starts_low(facts: Facts) -> str | None:
    power = facts.precision.initial_scale_power
    if power is None or power <= MOST_POWER or not _is_dynamic(facts):
        return None
    hysteresis = facts.precision.hysteresis or 1
    skipped = power - ARTICLES_POWER + hysteresis - 1
    return (
        f"fp16.initial_scale_power is {power}: with hysteresis {hysteresis}, coming down to the article's "
        f"2^{ARTICLES_POWER} takes {skipped} skipped steps"
    )


def _starts_above_least(facts: Facts) -> str | None:
    power, least = facts.precision.initial_scale_power, facts.precision.min_loss_scale
    if (
        power is None
        or least is None
        or power < 0
        or power >= (least - 1).bit_length()
        or not _is_dynamic(facts)
    ):
        return None
    return f"fp16.initial_scale_power is {power}, which is 2^{power} = {2**power}, and min_loss_scale {least}"


def _is_scaled(facts: Facts) -> str | None:
    scale = facts.precision.loss_scale
    if not facts.fp16_enabled or scale is None or not 0 < scale <= 1:
        return None
    return f"fp16 with a loss scale of {scale:g}: gradients below 6e-8 become zero"


def _keys_of_dynamic_scale(facts: Facts) -> str | None:
    found = present(facts, OF_DYNAMIC_SCALE)
    if not found or not facts.fp16_enabled or not facts.precision.loss_scale:
        return None
    return f"{are(found)} for a dynamic scale, and loss_scale is {facts.precision.loss_scale:g}"


def _hysteresis_without_zero(facts: Facts) -> str | None:
    found = present(facts, HYSTERESIS)
    if not found or facts.zero_stage != 0 or not _is_dynamic(facts):
        return None
    return f"{are(found)} there, and ZeRO's stage is 0"


def _starts_finite(facts: Facts) -> str | None:
    power = facts.precision.initial_scale_power
    largest = LARGEST_POWER_UNDER_ZERO if facts.zero_stage else LARGEST_POWER
    if power is None or power <= largest or not _is_dynamic(facts):
        return None
    return f"fp16.initial_scale_power is {power}, at ZeRO's stage {facts.zero_stage or 0}: {largest} at most"


RULES = (
    Rule(
        id="loss-scale-start-finite",
        summary="The first loss scale, 2 to the power of initial_scale_power, is one to compute with: 2^63 "
        "at most with ZeRO, 2^1023 without.",
        check=_starts_finite,
        remedy="set fp16.initial_scale_power to 9, as the article does",
        source="runtime/fp16/loss_scaler.py:161",
        engine_message="int too",
        keys=(POWER,),
        fix=setting(POWER, ARTICLES_POWER),
        needs=("precision",),
    ),
    Rule(
        id="loss-scale-not-negative",
        summary="The loss scale is 0 (dynamic) or more.",
        check=_is_not_negative,
        remedy="use 0 for a dynamic scale",
        source="runtime/precision_config.py:132",
        engine_message="fp16.loss_scale must be >= 0",
        keys=(SCALE,),
        fix=setting(SCALE, 0),
        needs=("precision",),
    ),
    Rule(
        id="loss-scale-window",
        summary="A dynamic loss scale grows after a positive number of steps.",
        check=_window_is_positive,
        remedy="use 1000 or 2000",
        source="runtime/precision_config.py:191",
        engine_message="fp16.loss_scale_window must be > 0",
        keys=(WINDOW,),
        fix=removal(WINDOW),
        needs=("precision",),
    ),
    Rule(
        id="loss-scale-minimum",
        summary="A dynamic loss scale stays positive.",
        check=_least_is_positive,
        remedy="use 1",
        source="runtime/precision_config.py:195",
        engine_message="fp16.min_loss_scale must be > 0",
        keys=(LEAST,),
        fix=removal(LEAST),
        needs=("precision",),
    ),
    Rule(
        id="loss-scale-initial",
        summary="A dynamic loss scale starts low for video: at 2^12 at most, not at the engine's 2^16.",
        check=_starts_low,
        remedy="set fp16.initial_scale_power to 9, as the article does",
        source="runtime/precision_config.py:135",
        severity="hurts",
        keys=(POWER,),
        fix=setting(POWER, ARTICLES_POWER),
        needs=("precision",),
    ),
    Rule(
        id="loss-scale-above-minimum",
        summary="A dynamic loss scale starts at its minimum or above: an overflow would raise it.",
        check=_starts_above_least,
        remedy="lower fp16.min_loss_scale",
        source="runtime/fp16/loss_scaler.py:261",
        severity="hurts",
        keys=(LEAST, POWER),
        fix=setting(LEAST, 1),
        needs=("precision",),
    ),
    Rule(
        id="loss-is-scaled",
        summary="fp16 needs a loss scale above 1: small gradients vanish without.",
        check=_is_scaled,
        remedy="set fp16.loss_scale to 0 for a dynamic scale",
        source="runtime/precision_config.py:115",
        severity="hurts",
        keys=(SCALE,),
        fix=setting(SCALE, 0),
        needs=("precision",),
    ),
    Rule(
        id="loss-scale-static-keys",
        summary="A fixed loss scale reads nothing of the dynamic one's keys.",
        check=_keys_of_dynamic_scale,
        remedy="take them out, or set fp16.loss_scale to 0",
        source="runtime/fp16/loss_scaler.py:107",
        severity="ignored",
        keys=OF_DYNAMIC_SCALE,
        fix=removal(*OF_DYNAMIC_SCALE),
        needs=("given", "precision"),
    ),
    Rule(
        id="loss-scale-hysteresis",
        summary="Without ZeRO the dynamic loss scale has no hysteresis: it halves at every overflow.",
        check=_hysteresis_without_zero,
        remedy="take it out",
        source="runtime/fp16/unfused_optimizer.py:280",
        severity="ignored",
        keys=HYSTERESIS,
        fix=lambda facts: tuple((key, REMOVE) for key in present(facts, HYSTERESIS)),
        needs=("given", "precision"),
    ),
)
