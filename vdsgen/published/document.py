"""Outcomes for programs: one JSON document."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.published.compare import Comparison, Outcome
from vdsgen.published.summary import summary


def document(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """`rows` with both figures or the reasons, and `summary`; errors are fractions of the measurement."""
    total = summary(outcomes)._asdict()
    return {
        "summary": {
            key: value._asdict() if hasattr(value, "_asdict") else value for key, value in total.items()
        },
        "rows": [
            {
                "row": one.row.line,
                "source": one.row.source,
                "model": one.row.model,
                "memory_gib": _figure(one.memory, one.memory_reason),
                "step_seconds": _figure(one.seconds, one.seconds_reason),
            }
            for one in outcomes
        ],
    }


def _figure(figure: Comparison | None, reason: str | None) -> dict[str, object] | None:
    if figure is None:
        return None if reason is None else {"not_predicted": reason}
    return {
        "measured": figure.measured,
        "predicted": figure.predicted,
        "error": figure.error,
        "counts": figure.counts,
        "remark": figure.remark,
    }
