"""`vdsgen cache`: fills, checks and prunes, says what it did, and exits as it should."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.clips import numbered, write_frames
from tests.model.cache.made import cached_source
from tests.model.training import render_tiny
from vdsgen.cli.main import cli
from vdsgen.model.cache.locks import use_lock
from vdsgen.spec.data import LatentCache
from vdsgen.spec.load import load_experiment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Three clips, one broken file, and a rendered directory with a cache of three windows a clip."""
    for number in range(3):
        write_frames(tmp_path / "clips" / f"{number}.mp4", numbered(12, first=20 * number))
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    cache = LatentCache(folder=str(tmp_path / "cache"), windows_per_clip=3)
    render_tiny(tmp_path / "plan", tmp_path / "clips", data_changes={"cache": cache})
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["cache", *map(str, arguments)])


def document(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    (found,) = json.loads(result.stdout)
    return dict(found)


def test_fills_then_has_nothing_to_do_then_finds_damage_and_makes_it_again(lab: Path) -> None:
    assert run(lab / "plan", "--check").exit_code == 1, "nothing is there"
    assert not (lab / "cache").exists(), "and nothing is written"
    result = run(lab / "plan", "--workers", 1)
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"{lab / 'cache'}: 0 of 9 entries are there, 9 were made in " in result.stdout
    assert f"left out: {lab / 'clips' / 'broken.mp4'}: cannot be decoded" in result.stdout
    assert document(lab / "plan")["made"] == 0
    assert run(lab / "plan", "--check").exit_code == 0

    (shard,) = (lab / "cache" / "shards").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-3] ^= 4
    times = shard.stat()
    shard.write_bytes(content)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert document(lab / "plan")["made"] == 0, "a bit that flips by itself changes no time"
    result = run(lab / "plan", "--check")
    assert result.exit_code == 1
    assert f"damaged: {shard} has other bytes than were written" in result.stdout
    assert "0 of 9 entries are there" in result.stdout
    assert document(lab / "plan", "--workers", 1)["made"] == 9, "what a check has found is made again"
    assert run(lab / "plan", "--check").exit_code == 0


def test_prunes_what_no_input_needs_and_only_when_asked_and_unused(lab: Path) -> None:
    more = ("--set", "data.cache.windows_per_clip=5", "--workers", 1)
    assert document(lab / "plan", "--workers", 1)["made"] == 9
    found = document(lab / "plan", *more)
    assert found["made"] == 6 and found["unused"] == 0
    assert "6 entries are not needed here; --prune removes them" in run(lab / "plan").stdout
    other = (lab / "plan" / "train.yaml").read_text().replace("windows_per_clip: 3", "windows_per_clip: 5")
    (lab / "other.yaml").write_text(other)
    result = run(lab / "plan", lab / "other.yaml", "--prune")
    assert "removed 0 entries" in result.stdout, "both are named"

    lock = use_lock(lab / "cache")
    assert lock.take(shared=True)
    refused = run(lab / "plan", "--prune")
    assert refused.exit_code == 2 and "is in use" in refused.stderr
    lock.release()

    shards = lab / "cache" / "shards"
    (shards / ("0" * 32 + ".damaged")).write_text("{}")
    (shards / ("0" * 32 + ".safetensors")).write_text("x")
    (shards / ".new.safetensors.part").write_text("somebody is writing")
    result = run(lab / "plan", "--prune")
    assert "removed 6 entries that nothing here needs and 2 leftovers" in result.stdout, result.output
    assert (shards / ".new.safetensors.part").exists()
    assert document(lab / "plan")["made"] == 0
    assert run(lab / "plan", "--check").exit_code == 0

    source = cached_source(load_experiment(lab / "plan" / "train.yaml"))
    assert run(lab / "plan", "--prune").exit_code == 2, "a run that reads it"
    source.reader.close()
    assert run(lab / "plan", "--prune").exit_code == 0


def test_held_out_clips_are_needed_at_their_one_window(lab: Path) -> None:
    """As a run reads them: a check after one finds nothing missing."""
    held_out = ("--set", "training.validation={fraction: 0.3}")
    found = document(lab / "plan", *held_out, "--workers", 1)
    assert found["needed"] == found["made"] == 2 * 3 + 1
    assert run(lab / "plan", *held_out, "--check").exit_code == 0
    assert run(lab / "plan", "--check").exit_code == 1


@pytest.mark.slow
def test_several_processes_share_the_work(lab: Path) -> None:
    found = document(lab / "plan", "--workers", 2)
    assert found["made"] == found["needed"] == 9
    progress = lab / "cache" / "progress"
    assert not progress.exists() or not list(progress.iterdir())
    assert run(lab / "plan", "--check").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.yaml"], "no such file"),
        (["{lab}/clips"], "no rendered directory: it has no train.yaml"),
        (["{root}/examples/experiments/cpu-demo.yaml"], "data.cache is not set"),
        (["{lab}/plan", "--set", "data.crop=random"], "data.cache holds the latents of fixed windows"),
        (["{lab}/plan", "--set", "data.cache.folder={lab}/clips"], "is no cache of latents, and not empty"),
        (["{lab}/plan", "--set", "data.videos={lab}/none"], "does not exist"),
        (["{lab}/plan", "--check", "--prune"], "--check writes nothing"),
        (["{lab}/plan", "--workers", "0"], "--workers"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_exits_with_2(lab: Path, arguments: list[str], words: str) -> None:
    result = run(*(argument.format(lab=lab, root=ROOT) for argument in arguments))
    assert result.exit_code == 2, (result.output, result.exception)
    assert words in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""
