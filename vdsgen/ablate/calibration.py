"""What an ablation learned, as a calibration that the lab file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vdsgen.ablate.fit import Fit
from vdsgen.ablate.records import Ablation
from vdsgen.ablate.statistics import root_mean_square
from vdsgen.files import write_atomically
from vdsgen.planner.words import percent
from vdsgen.spec.calibration import Calibration

CALIBRATION = "calibration.yaml"


def worth_writing(fit: Fit) -> bool:
    """Whether plans that the fit has not seen are predicted better with it. One plan cannot tell."""
    if not fit.held_out_errors:
        return True
    return root_mean_square(fit.held_out_errors) < root_mean_square(fit.errors_before)


def calibration_of(ablation: Ablation, fit: Fit) -> Calibration:
    """The pool's own measured rates, and the factors that belong to them."""
    base = ablation.pool.calibration or Calibration()
    assert isinstance(base, Calibration), "the lab file's reader puts figures in a path's place"
    return base.model_copy(update={"step_factors": fit.factors})


def calibration_text(ablation: Ablation, fit: Fit) -> str:
    """The file: comments that say how good it is, and the figures."""
    import yaml

    content: dict[str, Any] = calibration_of(ablation, fit).model_dump(mode="json", exclude_defaults=True)
    content["step_factors"] = fit.factors.model_dump(mode="json")
    lines = [
        f"# Written by `vdsgen ablate` for pool {ablation.pool.name}, from {fit.plans} plans of "
        f"{ablation.experiment}.",
        "# To plan with it: `calibration: FILE` in the pool of the lab file.",
        *(f"# {sentence}" for sentence in fit_sentences(fit)),
    ]
    return "\n".join(lines) + "\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def fit_sentences(fit: Fit) -> list[str]:
    """What was fitted and how far off it is."""
    before, after = (root_mean_square(errors) for errors in (fit.errors_before, fit.errors))
    sentences = [
        f"Fitted: {fit.form}.",
        f"Step times were off by {percent(before)} (root mean square); with the factors by {percent(after)}, "
        f"{percent(max(map(abs, fit.errors)))} at worst.",
    ]
    if not fit.held_out_errors:
        sentences.append("One plan: how well other plans are predicted with it is not known.")
    else:
        held_out = fit.held_out_errors
        sentences.append(
            f"Each plan by factors fitted to the others: {percent(root_mean_square(held_out))}, "
            f"{percent(max(map(abs, held_out)))} at worst."
        )
    return sentences


def write_calibration(directory: Path, ablation: Ablation, fit: Fit | None) -> Path | None:
    """The path, or None where there is nothing worth writing: then none is left from before."""
    path = directory / CALIBRATION
    if fit is None or not worth_writing(fit):
        path.unlink(missing_ok=True)
        return None
    write_atomically(path, calibration_text(ablation, fit).encode())
    return path
