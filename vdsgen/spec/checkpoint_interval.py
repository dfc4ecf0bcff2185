"""How often to save: what saving costs against what a failure loses.

J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974; J. T. Daly,
"A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation Computer
Systems 22(3), 2006. Failures come at random (Poisson), also while a checkpoint is written or after a failure.

Legend, all in seconds: delta what a save holds training up; M mean time between failures of the whole job; R
from a failure to the first step that is trained again; tau what is trained between two saves.
"""

from __future__ import annotations

from math import expm1, inf, sqrt

LARGEST_EXPONENT = 500.0
"""Beyond, nothing is ever finished."""


def young_seconds(delta: float, between_failures: float) -> float:
    """tau = sqrt(2 delta M): Young's equation for the optimum, good where delta is far below M."""
    return sqrt(2 * delta * between_failures)


def daly_seconds(delta: float, between_failures: float) -> float:
    """Daly's higher order estimate (his equation 37): sqrt(2 delta M) (1 + x / 3 + x^2 / 9) - delta with
    x = sqrt(delta / (2 M)), and M where delta is 2 M or more."""
    if delta >= 2 * between_failures:
        return between_failures
    x = sqrt(delta / (2 * between_failures))
    return young_seconds(delta, between_failures) * (1 + x / 3 + x * x / 9) - delta


def overhead_fraction(tau: float, delta: float, between_failures: float, restart: float) -> float:
    """What saving and failures add to a run's time, of the time that its steps take.

    The expected time of a segment of work and its save is M exp(R / M) (exp((tau + delta) / M) - 1) (Daly
    2006, his complete cost function); infinite where no segment is likely ever to end."""
    mean = between_failures
    if (tau + delta) / mean > LARGEST_EXPONENT or restart / mean > LARGEST_EXPONENT:
        return inf
    return mean / tau * (1 + expm1(restart / mean)) * expm1((tau + delta) / mean) - 1


def best_steps(step_seconds: float, delta: float, between_failures: float, most_steps: int) -> int:
    """Steps between saves: Daly's interval in whole steps, whichever of its two neighbours costs less; no
    more than there are."""
    exact = daly_seconds(delta, between_failures) / step_seconds
    fewer = min(max(1, int(min(exact, most_steps))), most_steps)
    more = min(fewer + 1, most_steps)
    return min(
        (fewer, more), key=lambda steps: overhead_fraction(steps * step_seconds, delta, between_failures, 0.0)
    )
