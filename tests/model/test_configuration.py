"""What a training run is told, checked before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.training import render_tiny
from vdsgen.errors import VdsgenError
from vdsgen.model.configuration import Configuration, read_configuration
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.data import ClipSize

BUCKETS = (ClipSize(frames=8, height=8, width=32),)


def rendered(folder: Path, buckets: tuple[ClipSize, ...] = ()) -> Path:
    return render_tiny(folder / "plan", folder / "clips", pipeline=1, data=1, zero_stage=0, buckets=buckets)


def configuration(plan: Path) -> Configuration:
    return read_configuration(["--plan-dir", str(plan), "--output", str(plan / "run")], {"WORLD_SIZE": "1"})


def test_clips_have_their_sizes_and_samples_the_first(tmp_path: Path) -> None:
    found = configuration(rendered(tmp_path, BUCKETS))
    assert found.sizes == (ClipSize(frames=4, height=16, width=16), *BUCKETS)
    assert found.geometry == Geometry(4, 4, 0, 4, 4)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("buckets: []", "buckets: [{frames: 4, height: 16, width: 12}]",
         r"data.buckets\[0\] \(4 x 16 x 12\): patch_size \(2\) must divide the latent frame \(4 x 3\)"),
        ("width: 16", "width: 12", r"data \(4 x 16 x 12\): patch_size \(2\) must divide"),
        ("position: rotary", "position: learned\n  max_frames: 3", r"data \(4 x 16 x 16\): 4 latent frames"),
    ],
)  # fmt: skip
def test_a_size_that_the_edited_model_does_not_take_is_named(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    plan = rendered(tmp_path)
    text = (plan / "train.yaml").read_text()
    assert text.count(old) == 1
    text = text.replace("  max_frames: 64\n", "") if "max_frames" in new else text
    (plan / "train.yaml").write_text(text.replace(old, new))
    with pytest.raises(VdsgenError, match=f"train.yaml: {complaint}"):
        configuration(plan)
