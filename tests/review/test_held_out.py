"""`vdsgen diff` on the held-out pairs: each classified as what it is known to be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.campaigns.figures import REVIEWS, read
from tests.campaigns.verdict_tables import resumes
from tests.review.held_out_pairs import HeldOut, held_out, written
from vdsgen.cli.diff import command as diff

PAIRS = list(held_out())
MEASURED = {
    row["pair"]: row for rows in read("verdicts", REVIEWS)["figures"]["topics"].values() for row in rows
}
RESUMES = {
    "as it is": {"as_is"},
    "converted": {"conversion"},
    "refused": {"conversion", "impossible"},
    "other states": {"conversion", "impossible"},
}
"""What training showed of a checkpoint, and the verdicts that are right about it."""
HOUSEKEEPING = {"housekeeping"}
TOLERANCE = 1e-6
"""Of learning rates, relative."""


def reviewed(pair: HeldOut, folder: Path) -> dict[str, Any]:
    """What `vdsgen diff --format json` says."""
    old, new = written(pair, folder)
    result = CliRunner().invoke(diff, [str(old), str(new), "--format", "json"])
    assert result.exit_code in (0, 1), f"exit code {result.exit_code}: {result.output}{result.exception!r}"
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if document["same"] else 1)
    return document


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_pair_is_classified_as_it_is_known_to_be(pair: HeldOut, tmp_path: Path) -> None:
    wrong = list(faults(pair, reviewed(pair, tmp_path)))
    assert not wrong, f"{pair['what']} ({pair['source']}):\n" + "\n".join(wrong)


def faults(pair: HeldOut, document: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it is known to be."""
    verdicts = document["verdicts"]
    if document["same"] != pair.same and not pair.is_inert:
        yield f"same is {document['same']}"
    if pair.same:
        if (verdicts["loss_curve"], verdicts["resume"]) != ("identical", "as_is"):
            yield f"the same, with verdicts {verdicts['loss_curve']}, {verdicts['resume']}"
        if document["risks"]:
            yield f"the same, with risks: {document['risks']}"
        return
    for verdict in ("loss_curve", "resume"):
        if (allowed := pair.allowed(verdict)) and verdicts[verdict] not in allowed:
            yield f"{verdict} is {verdicts[verdict]}, for {verdicts[f'{verdict}_because']}; known: {allowed}"
        for key in pair.allowed(f"{verdict}_because"):
            full = key if ":" in key else f"ds_config.json:{key}"
            if full not in verdicts[f"{verdict}_because"]:
                yield f"{verdict} comes from {verdicts[f'{verdict}_because']}, known: {full}"
    yield from _wrong_groups(pair, document)
    yield from _wrong_rates(pair, verdicts["learning_rate"])
    yield from _wrong_directions(pair, document)
    if pair["risk"] and not document["risks"]:
        yield f"no risk is named, known: {pair['risk']}"


def _wrong_groups(pair: HeldOut, document: Mapping[str, Any]) -> Iterator[str]:
    shown = [change for change in document["changes"] if change["follows_from"] is None]
    touched = {group for change in shown for group in change["affects"]}
    if missing := set(pair["touches"] or ()) - touched:
        yield f"touches {sorted(touched)}, known: {sorted(missing)} too"
    if pair["only"] and touched - HOUSEKEEPING != set(pair["only"]) - HOUSEKEEPING:
        yield f"touches {sorted(touched)}, known: {pair['only']} alone"


def _wrong_rates(pair: HeldOut, said: Mapping[str, float] | None) -> Iterator[str]:
    known = pair["learning_rate"] or ({"batch_ratio": pair["batch_ratio"]} if pair["batch_ratio"] else {})
    if not known and said is not None:
        yield f"a batch that did not change: {said}"
    for key, value in known.items():
        if said is None or said[key] != pytest.approx(value, rel=TOLERANCE):
            yield f"learning_rate.{key} is {said and said[key]}, known: {value}"


def _wrong_directions(pair: HeldOut, document: Mapping[str, Any]) -> Iterator[str]:
    time = pair["time"] or {}
    for what, known, figures in (
        ("memory", pair["memory"] or {}, memory_of),
        ("time", {"step": time} if isinstance(time, str) else time, time_of),
    ):
        for part, way in known.items():
            old, new = (figures(document, side, part) for side in ("old", "new"))
            if direction(old, new) != way:
                yield f"{what}, {part}: {old} -> {new}, known: {way}"


def memory_of(document: Mapping[str, Any], side: str, part: str) -> float:
    """Bytes of the fullest GPU, or of one component on the first stage."""
    if part == "peak":
        return float(document["predicted"][side]["peak_bytes"])
    stage = document["impact"]["memory"]["stages"][0]
    return float(stage["components"][f"{part}_bytes"][side])


def time_of(document: Mapping[str, Any], side: str, part: str) -> float:
    """Seconds of a step, or of one cause in it."""
    if part == "step":
        return float(document["predicted"][side]["step_seconds"])
    return float(document["impact"]["time"][f"{part}_seconds"][side])


def direction(old: float, new: float) -> str:
    return "same" if old == new else "higher" if new > old else "lower"


def test_there_are_enough_of_every_kind() -> None:
    assert len(PAIRS) >= 80
    assert sum(pair.same for pair in PAIRS) >= 20
    assert min(sum(pair.is_plain is plain for pair in PAIRS) for plain in (True, False)) >= 35
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)
    for verdict, values in (
        ("loss_curve", {"identical", "rounding", "different"}),
        ("resume", {"as_is", "conversion", "impossible"}),
    ):
        counts = [sum(pair.allowed(verdict) == (value,) for pair in PAIRS) for value in values]
        assert min(counts) >= 5, f"{verdict}: {counts}"


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair["run"]], ids=lambda pair: pair.name)
def test_what_is_known_is_what_training_showed(pair: HeldOut) -> None:
    """A truth that was run is the measured one. Few steps bound differences from below: what is different may
    show little of it, but never nothing; and what only rounds never shows more than rounding."""
    run = MEASURED[pair["run"]]
    known = pair.allowed("loss_curve") if not pair.same else ("identical",)
    if "identical" in known and len(known) == 1:
        assert run["same_weights"]
    elif known == ("rounding",):
        assert run["within_rounding"]
    elif known == ("different",):
        assert not run["same_weights"]
    shown = resumes(run, "deepspeed" if pair.is_plain else "vdsgen")
    resuming = pair.allowed("resume") if not pair.same else ("as_is",)
    assert not resuming or set(resuming) & RESUMES[shown], shown
