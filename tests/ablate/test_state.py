from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ablate.results import ablation, entry, failed, ran
from vdsgen.ablate.records import RunEnded, RunStarted
from vdsgen.ablate.results import results_of
from vdsgen.ablate.state import JOURNAL, AblationDirectory
from vdsgen.errors import VdsgenError

FILES = {"plan.json": b'{"generator": "vdsgen 0"}', "ds_config.json": b"{}", "launch.sh": b"#!/bin/sh\n"}


def test_the_same_ablation_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    directory = AblationDirectory(tmp_path / "out")
    first = ablation(entry("a"), entry("b"))
    with directory.locked():
        directory.begin(first, {"a": FILES, "b": FILES})
        directory.begin(first, {"a": FILES, "b": FILES})
        assert directory.read() == first
        changes = {
            "the experiment was changed": first.model_copy(update={"experiment_sha256": "x"}),
            "the lab's pool was changed": first.model_copy(update={"lab_sha256": "x"}),
            "it measures 3 steps a run, not 4": first.model_copy(update={"steps": 4}),
            "b is no longer asked for; c is new": ablation(entry("a"), entry("c")),
            "the plans are in another order": ablation(entry("b"), entry("a")),
        }
        for words, other in changes.items():
            with pytest.raises(VdsgenError, match="results of another ablation") as caught:
                directory.begin(other, {})
            assert words in str(caught.value)


def test_a_rendered_plan_is_completed_and_an_edited_one_is_noticed(tmp_path: Path) -> None:
    directory = AblationDirectory(tmp_path)
    with directory.locked():
        directory.begin(ablation(entry("a")), {"a": FILES})
        written = {path.name: path.read_bytes() for path in directory.plan("a").iterdir()}
        assert written == FILES
        # As if the first process had been killed between two files.
        (directory.plan("a") / "plan.json").unlink()
        (directory.plan("a") / ".plan.json.vdsgen-pending").write_bytes(b"{")
        directory.begin(ablation(entry("a")), {"a": FILES})
        assert {path.name: path.read_bytes() for path in directory.plan("a").iterdir()} == FILES
        (directory.plan("a") / "ds_config.json").write_bytes(b'{"x": 1}')
        with pytest.raises(VdsgenError, match=r"was changed since it was rendered: ds_config\.json"):
            directory.begin(ablation(entry("a")), {"a": FILES})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from vdsgen.ablate.state import AblationDirectory\n"
        "with AblationDirectory(Path(sys.argv[1])).locked(): print('mine')"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path)]
    with AblationDirectory(tmp_path).locked():
        other = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert "another `vdsgen ablate` is at work" in other.stderr
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "mine\n"


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(VdsgenError, match=r"holds no ablation; it holds notes.txt"),
        AblationDirectory(tmp_path).locked(),
    ):
        pass
    with pytest.raises(VdsgenError, match="is a file"), AblationDirectory(tmp_path / "notes.txt").locked():
        pass
    with pytest.raises(VdsgenError, match="holds no ablation"):
        AblationDirectory(tmp_path).read()


LINES: list[RunStarted | RunEnded] = [
    RunStarted(plan="a", round=1, launch_id="x" * 32),
    ran("a", 1, 1.0, 2.0),
    failed("b", 1, error="error: \N{SNOWMAN}\nlast words"),
    ran("a", 2, 3.0),
]


@given(st.data())
def test_a_journal_cut_anywhere_loses_its_last_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = AblationDirectory(tmp_path_factory.mktemp("cut"))
    for line in LINES:
        directory.append(line)
    path = directory.path / JOURNAL
    size = data.draw(st.integers(0, path.stat().st_size))
    os.truncate(path, size)
    whole = path.read_bytes().count(b"\n")
    kept = directory.journal()
    assert kept[:whole] == LINES[:whole] and len(kept) <= whole + 1
    directory.append(LINES[0])
    assert directory.journal() == [*kept, LINES[0]]


def test_results_combine_rounds_by_their_medians(tmp_path: Path) -> None:
    directory = AblationDirectory(tmp_path)
    journal = [
        ran("a", 1, 4.0, 1.0, 2.0, data_seconds=(0.1, 0.3, 0.2)),
        ran("a", 2, 6.0, 5.0, 9.0, peak_memory_bytes_by_stage=(80, 200)),
        failed("b", 1),
        ran("b", 1, 2.0),  # tried again
        ran("c", 1, 2.0),
        failed("c", 2, "out_of_memory", "error: killed"),
    ]
    results = results_of(ablation(entry("a"), entry("b"), entry("c"), entry("d")), journal)
    first = results[0].measured
    assert first is not None
    assert first.round_step_seconds == (2.0, 6.0)
    assert first.step_seconds == 4.0
    assert first.samples_per_second == 2.0
    assert first.step_seconds_quartiles == (2.5, 5.75)
    assert first.data_wait_seconds == pytest.approx(0.1)
    assert first.peak_memory_bytes_by_stage == (90 * 1024**2, 84 * 1024**2)
    assert [result.status for result in results] == ["ok", "ok", "out_of_memory", "pending"]
    assert results[2].error == "error: killed"
    directory.write_results(results)
    assert directory.results.read_bytes().count(b"\n") == 4
