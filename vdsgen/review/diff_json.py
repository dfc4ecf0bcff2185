"""A diff for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vdsgen.review import impact
from vdsgen.review.absent import ABSENT
from vdsgen.review.changes import Change
from vdsgen.review.diff import Diff, Prediction
from vdsgen.review.verdicts import Verdicts


def as_json(result: Diff) -> dict[str, Any]:
    """Every change, `old` or `new` left out where the key is absent; bytes and seconds."""
    return {
        "schema_version": 1,
        "old": result.old,
        "new": result.new,
        "same": result.same,
        "verdicts": _verdicts(result.verdicts),
        "risks": [{**risk._asdict(), "keys": list(risk.keys)} for risk in result.risks],
        "changes": [_change(change) for change in result.changes],
        "edited": [edited.label for edited in result.edited],
        "not_predicted": {edited.label: edited.missing for edited in result.edited if edited.missing},
        "predicted": {"old": _prediction(result.before), "new": _prediction(result.after)},
        "impact": None if result.impact is None else impact.as_json(result.impact),
    }


def _verdicts(verdicts: Verdicts) -> dict[str, Any]:
    scaled = verdicts.learning_rate
    return {
        "loss_curve": verdicts.loss_curve,
        "loss_curve_because": list(verdicts.loss_curve_because),
        "resume": verdicts.resume.verdict,
        "resume_because": list(verdicts.resume.because),
        "resume_reasons": list(verdicts.resume.reasons),
        "learning_rate": None if scaled is None else asdict(scaled),
    }


def _change(change: Change) -> dict[str, Any]:
    """`effective` is what the engine works with, where a side does not write it, or writes it otherwise."""
    entry: dict[str, Any] = {"file": change.file, "key": change.key}
    effective: dict[str, Any] = {}
    for side, written, value in (("old", change.old, change.was), ("new", change.new, change.now)):
        if written is not ABSENT:
            entry[side] = written.decode("utf-8", "replace") if isinstance(written, bytes) else written
        if value is not ABSENT and value is not None and (written is ABSENT or value != written):
            effective[side] = value
    if effective:
        entry["effective"] = effective
    return {
        **entry,
        "affects": list(change.affects),
        "follows_from": change.follows_from,
        "loss_curve": change.curve,
        "note": change.note,
    }


def _prediction(prediction: Prediction | None) -> dict[str, Any] | None:
    if prediction is None:
        return None
    return {**asdict(prediction), "stage_peak_bytes": list(prediction.stage_peak_bytes)}
