"""`vdsgen profile`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vdsgen.catalog import models
from vdsgen.catalog.profiles import PRETRAINED_FOLDER
from vdsgen.cli.main import cli
from vdsgen.spec.architecture import architecture_sha256
from vdsgen.spec.pretrained import PretrainedModel, PretrainedProfile
from vdsgen.spec.profile import ModelProfile

EXPERIMENT = """
name: small
model:
  family: vdt
  name: tiny
  in_channels: 48
  patch_size: 2
  hidden_size: 16
  depth: 3
  heads: 2
  mlp_hidden_size: 32
  condition: none
data: {videos: clips, frames: 4, height: 32, width: 32, latents: {codec: space_to_depth, factor: 4}}
training: {global_batch_size: 4, steps: 10}
"""


PROFILES = Path(__file__).parents[2] / "vdsgen" / "catalog" / "data" / "profiles"


def profile(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["profile", *(str(argument) for argument in arguments)])


def test_an_experiments_model_is_traced(tmp_path: Path) -> None:
    experiment, out = tmp_path / "experiment.yaml", tmp_path / "tiny.json"
    experiment.write_text(EXPERIMENT)
    result = profile(experiment, "--out", out)
    assert result.exit_code == 0, result.output
    found = ModelProfile.model_validate_json(out.read_bytes())
    assert found.model == "tiny"
    assert len(found.layers) == 5


def test_what_is_neither_a_model_nor_a_file_is_refused() -> None:
    result = profile("vdt-9b")
    assert result.exit_code == 2
    assert "no model 'vdt-9b'" in result.stderr
    assert "vdt-1.5b" in result.stderr


def test_a_diffusers_model_is_traced_with_its_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's part alone: tracing takes half a minute, and tests/profile looks at what it gives."""
    from vdsgen.profile.families import build

    stored = PRETRAINED_FOLDER / "ltx-video-2b.json"
    asked = []

    def known(
        name: str, entry: PretrainedModel, said: Callable[[str], None], *, targets: Sequence[str] | None
    ) -> PretrainedProfile:
        asked.append((name, entry.class_name, targets))
        said("step")
        return PretrainedProfile.model_validate_json(stored.read_bytes())

    monkeypatch.setattr(build, "build_pretrained_profile", known)
    result = profile("ltx-video-2b", "--out", tmp_path / "ltx.json")
    assert result.exit_code == 0, result.output
    assert asked == [("ltx-video-2b", "LTXVideoTransformer3DModel", None)]
    assert (tmp_path / "ltx.json").read_bytes() == stored.read_bytes(), "the text that is committed"
    assert "1.923 B parameters" in result.stderr
    assert "step" not in result.stderr, "progress is for terminals"


def test_a_diffusers_model_is_listed() -> None:
    listed = CliRunner().invoke(cli, ["catalog", "models"]).stdout
    assert re.search(r"wan2.1-t2v-14b +14,288,491,584 +42 +WanTransformer3DModel", listed)
    shown = CliRunner().invoke(cli, ["catalog", "models", "wan2.1-t2v-14b"])
    assert shown.exit_code == 0
    assert "config.num_layers  40" in shown.stdout


@pytest.mark.parametrize("arguments", [(), ("--all",), ("vdt-demo", "--all", "--out", "x")])
def test_unclear_demands_are_refused(arguments: tuple[str, ...]) -> None:
    assert profile(*arguments).exit_code == 2


@pytest.mark.slow
def test_standard_output_carries_the_profile_alone_and_it_is_the_committed_one_to_the_letter() -> None:
    """In a process of its own: DeepSpeed logs to standard output when it is first imported.

    To renew the committed ones: vdsgen profile --all --out vdsgen/catalog/data/profiles
    """
    command = [sys.executable, "-m", "vdsgen", "profile", "vdt-demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = ModelProfile.model_validate_json(done.stdout)
    committed = PROFILES.joinpath("vdt-demo.json").read_text()
    assert done.stdout.replace(found.torch_version, torch_version(committed)) == committed
    assert found.layers == ("embed", *("block",) * models()["vdt-demo"].sizes.depth, "final")
    assert found.architecture_sha256 == architecture_sha256(models()["vdt-demo"].sizes)


def torch_version(profile: str) -> str:
    return ModelProfile.model_validate_json(profile).torch_version
