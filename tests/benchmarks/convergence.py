"""Does training work? The demo's model learns four real clips by heart; its samples, beside them.

    python -m tests.benchmarks.convergence [--lab LAB] [--out docs/images/convergence.png] [--work DIRECTORY]

Plans examples/experiments/cpu-overfit.yaml (for examples/labs/cpu-demo.yaml by default) and trains it through
`vdsgen launch`, two pipeline stages times two data ranks. Each sample video starts from noise and is told a
clip's caption alone. Printed: how near it comes to that clip, as a peak signal-to-noise ratio (dB) over all
its pixels, and whether that is the nearest of the four. Exit code 1 where the last samples are not
recognisable: not nearest to their own clip, or below RECOGNISABLE_DB. With a --work that holds the finished
run, nothing is trained.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.clips import real_clips

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPERIMENT = EXAMPLES / "experiments" / "cpu-overfit.yaml"
LAB = EXAMPLES / "labs" / "cpu-demo.yaml"
RECOGNISABLE_DB = 18.0
"""An error of an eighth of the pixels' range, root mean square: faces and outlines are plain to see."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Samples:
    """What one sample video of the run shows: uint8 (clips, T, H, W, 3)."""

    step: int
    clips: Pixels


@dataclass(frozen=True, slots=True)
class Score:
    """How near one sample comes."""

    decibels: float
    nearest: int
    """The clip that it is nearest to."""


def train(work: Path, lab: Path) -> Path:
    """The run's directory, trained where it is not there."""
    run = work / "run"
    if not (run / "summary.json").exists():
        experiment = work / "experiment.yaml"
        text = EXPERIMENT.read_text()
        assert "data/clips " in text and "runs/overfit/cache" in text
        text = text.replace("data/clips ", f"{real_clips()} ").replace(
            "runs/overfit/cache", str(work / "cache")
        )
        experiment.write_text(text)
        vdsgen = [sys.executable, "-m", "vdsgen"]
        subprocess.run(
            [*vdsgen, "generate", str(experiment), "--lab", str(lab), "--out", str(work / "plan")], check=True
        )
        subprocess.run([*vdsgen, "launch", str(work / "plan"), "--output", str(run)], check=True)
    return run


def clips_of(run: Path) -> Pixels:
    """The clips as training saw them: uint8 (clips, T, H, W, 3)."""
    from vdsgen.model.data.clips import ClipReader
    from vdsgen.model.data.index import scan
    from vdsgen.spec.load import load_experiment

    data = load_experiment(run.parent / "experiment.yaml").data
    index = scan(data)
    reader = ClipReader(index, data, seed=0, condition_dropout=0.0)
    clips = [reader.middle(position).numpy() for position in range(len(index.entries))]
    return np.stack(clips).transpose(0, 2, 3, 4, 1)


def samples_of(run: Path, like: Pixels) -> list[Samples]:
    """From the contact sheets, whose rows are clips and whose columns all their frames, in order of steps."""
    from matplotlib import image

    clips, frames, height, width, _ = like.shape
    found = []
    for sheet in sorted((run / "samples").glob("step-*.png")):
        pixels = (image.imread(sheet)[..., :3] * 255).round().astype(np.uint8)
        assert pixels.shape == (clips * height, frames * width, 3), f"{sheet} shows other clips"
        parts = pixels.reshape(clips, height, frames, width, 3).transpose(0, 2, 1, 3, 4)
        found.append(Samples(int(sheet.stem.removeprefix("step-")), parts))
    return found


def score(sample: Pixels, clips: Pixels, own: int) -> Score:
    errors = [float(np.mean((sample.astype(float) - clip.astype(float)) ** 2)) for clip in clips]
    return Score(10 * math.log10(255**2 / max(errors[own], 1e-9)), int(np.argmin(errors)))


def draw(clips: Pixels, samples: Sequence[Samples], names: Sequence[str], path: Path) -> None:
    """A row a clip: its middle frame, and what was sampled of it on the way, from left to right."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    columns = [("the clip", clips), *((f"step {s.step:,}", s.clips) for s in samples)]
    figure, axes = pyplot.subplots(
        len(clips),
        len(columns),
        figsize=(1.3 * len(columns), 1.36 * len(clips)),
        layout="constrained",
        squeeze=False,
    )
    for row, name in enumerate(names):
        for column, (title, videos) in enumerate(columns):
            axis = axes[row][column]
            axis.imshow(videos[row][videos.shape[1] // 2], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=9)
        axes[row][0].set_ylabel(name, fontsize=8)
    figure.savefig(str(path), dpi=110, metadata={"Software": None})


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--out", type=Path, help="draw the clips and the samples here")
    arguments.add_argument("--lab", type=Path, default=LAB)
    arguments.add_argument("--work", type=Path, help="where the run is, or goes")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        return report(train(work, given.lab), given.out)


def report(run: Path, picture: Path | None) -> int:
    clips = clips_of(run)
    samples = samples_of(run, clips)
    names = sorted(path.stem for path in real_clips().glob("*.mp4"))
    print(f"{'step':>6}  " + "  ".join(f"{name:>20}" for name in names))
    for found in samples:
        scores = [score(sample, clips, own) for own, sample in enumerate(found.clips)]
        words = [
            f"{s.decibels:.1f} dB" + ("" if s.nearest == own else f" ({names[s.nearest]})")
            for own, s in enumerate(scores)
        ]
        print(f"{found.step:>6}  " + "  ".join(f"{word:>20}" for word in words))
    if picture is not None:
        draw(clips, samples, names, picture)
    recognised = [s.nearest == own and s.decibels >= RECOGNISABLE_DB for own, s in enumerate(scores)]
    print(f"{sum(recognised)} of {len(recognised)} clips recognisable")
    return 0 if all(recognised) else 1


if __name__ == "__main__":
    sys.exit(main())
