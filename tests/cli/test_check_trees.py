"""`vdsgen check` over whole trees: verdicts, the manifest, `--fix` and `--adopt`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.rendering import EXPERIMENT, LAB, files_of, run
from tests.cli.trees import commit, repository, tree
from tests.review.directories import edit
from vdsgen.review.trees.plans import Plans


@pytest.fixture(scope="module", autouse=True)
def _planned_once() -> Iterator[None]:
    """Plans are made once for all of these tests."""
    from vdsgen.cli import check as command

    plans = Plans(command.plan_again)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "plan_again", plans)
        yield


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered once; tests copy it."""
    folder = tmp_path_factory.mktemp("tree")
    tree(folder)
    return folder


@pytest.fixture
def configs(rendered: Path, tmp_path: Path) -> Path:
    shutil.copytree(rendered, tmp_path / "repo")
    return tmp_path / "repo" / "configs"


def document(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = run("check", *arguments, "--json")
    assert result.stderr == ""
    return result.exit_code, json.loads(result.stdout)


def verdicts(configs: Path, *arguments: str) -> dict[str, str]:
    _, found = document(configs, *arguments)
    return {Path(one["path"]).relative_to(configs).as_posix(): one["verdict"] for one in found["directories"]}


FRESH = {"long": "fresh", "small/four": "fresh", "small/two": "fresh"}


def test_a_tree_that_was_just_rendered_is_fresh(configs: Path) -> None:
    result = run("check", configs)
    assert (result.exit_code, result.stdout) == (0, f"{configs}: 3 rendered directories: 3 fresh\n")


def test_without_a_manifest_directories_are_held_against_what_they_record(configs: Path) -> None:
    (configs / "vdsgen.yaml").unlink()
    assert verdicts(configs) == FRESH
    edit(configs / "long/train.yaml", "learning_rate: 0.0001", "learning_rate: 0.0002")
    assert verdicts(configs) == {**FRESH, "long": "stale"}


def test_an_experiment_that_changed_makes_all_that_come_from_it_stale(configs: Path) -> None:
    edit(configs.parent / "experiments/small.yaml", "steps: 100", "steps: 100\n  seed: 7")
    result = run("check", configs)
    assert result.exit_code == 1
    assert "small.yaml was changed since: training.seed 0 -> 7" in " ".join(result.stdout.split())
    assert verdicts(configs) == dict.fromkeys(FRESH, "stale")
    assert verdicts(configs, "--fix") == FRESH
    assert "seed: 7" in (configs / "long/train.yaml").read_text()
    assert "steps: 200" in (configs / "long/train.yaml").read_text(), "what the entry sets stays set"


def test_a_lab_that_changed_makes_its_pool_s_directories_stale(configs: Path) -> None:
    edit(configs.parent / "labs/lab.yaml", "gpu: rtx-4090", "gpu: rtx-3090")
    assert verdicts(configs) == {**FRESH, "small/two": "stale"}


@pytest.mark.parametrize(
    ("change", "orphaned", "because"),
    [
        ("labs/lab.yaml", ["long", "small/four", "small/two"], "is gone"),
        ("experiments/small.yaml", ["long", "small/four", "small/two"], "is gone"),
        ("pool", ["small/two"], "no pool of"),
        ("entry", ["long"], "no entry of"),
    ],
)
def test_what_nothing_renders_any_more_is_orphaned_and_left_alone(
    configs: Path, change: str, orphaned: list[str], because: str
) -> None:
    if change == "pool":
        lab = configs.parent / "labs/lab.yaml"
        lab.write_text(lab.read_text().replace("name: two", "name: three"))
    elif change == "entry":
        manifest = configs / "vdsgen.yaml"
        manifest.write_text(manifest.read_text().partition("  - experiment: ../experiments/small.yaml\n"
                            "    lab: ../labs/lab.yaml\n    out: long")[0])  # fmt: skip
    else:
        (configs.parent / change).unlink()
    before = files_of(configs)
    found = verdicts(configs)
    assert [path for path, verdict in found.items() if verdict == "orphaned"] == orphaned
    result = run("check", configs, "--fix")
    assert result.exit_code == 1
    assert because in result.stdout
    assert before.items() <= files_of(configs).items()


def test_what_the_manifest_names_and_nobody_rendered_is_missing_and_then_rendered(configs: Path) -> None:
    before = files_of(configs / "small/four")
    shutil.rmtree(configs / "small/four")
    assert verdicts(configs) == {**FRESH, "small/four": "missing"}
    assert verdicts(configs, "--fix") == FRESH
    assert files_of(configs / "small/four") == before


def test_another_version_is_told_from_stale(configs: Path) -> None:
    plan = json.loads((configs / "long/plan.json").read_text())
    edit(configs / "long/plan.json", plan["generator"], "vdsgen 0.0.1")
    edit(configs / "long/PLAN.md", plan["generator"], "vdsgen 0.0.1")
    assert verdicts(configs) == {**FRESH, "long": "other_version"}
    assert "planned by vdsgen 0.0.1, this is vdsgen" in run("check", configs).stdout


def test_files_of_another_launcher_are_left_over_and_told(configs: Path) -> None:
    (configs / "long/train.sbatch").write_text("#!/bin/bash\n")
    assert verdicts(configs) == {**FRESH, "long": "orphaned"}
    assert "train.sbatch: no longer rendered" in run("check", configs).stdout
    assert run("check", configs, "--fix").exit_code == 1
    assert (configs / "long/train.sbatch").exists()


def test_one_broken_directory_does_not_hide_the_others(configs: Path) -> None:
    (configs / "long/plan.json").write_text("{")
    result = run("check", configs)
    assert result.exit_code == 2
    assert "2 fresh, 1 cannot be checked" in result.stdout
    assert "plan.json:1:2: no JSON" in " ".join(result.stdout.split())


def test_an_edit_that_can_be_an_override_is_told_so_with_its_lines(configs: Path) -> None:
    config = configs / "long/ds_config.json"
    edit(config, '"steps_per_print": 100', '"steps_per_print": 7,\n  "wall_clock_breakdown": true')
    edit(config, '"gradient_clipping": 1.0', '"gradient_clipping": 2.0')
    result = run("check", configs)
    assert result.exit_code == 1
    told = " ".join(result.stdout.split())
    assert "steps_per_print is 7, rendered as 100 -> can be an override" in told
    assert "gradient_clipping is 2.0, rendered as 1.0 -> say it as training.gradient_clipping instead" in told
    assert "overrides: ds_config: steps_per_print: 7 wall_clock_breakdown: true" in told


def test_fix_leaves_what_was_edited_by_hand_until_it_is_forced_and_then_keeps_it_aside(configs: Path) -> None:
    script = configs / "long/launch.sh"
    script.write_text(script.read_text() + "# mine\n")
    edited = script.read_bytes()
    result = run("check", configs, "--fix")
    assert result.exit_code == 1
    assert "left as it is: launch.sh edited by hand" in result.stdout
    assert script.read_bytes() == edited
    result = run("check", configs, "--fix", "--force")
    assert result.exit_code == 0
    assert "rendered launch.sh; kept launch.sh.edited" in result.stdout
    assert (configs / "long/launch.sh.edited").read_bytes() == edited
    script.write_bytes(edited + b"# more\n")
    assert run("check", configs, "--fix", "--force").exit_code == 0
    assert (configs / "long/launch.sh.edited").read_bytes() == edited
    assert (configs / "long/launch.sh.edited-2").read_bytes() == edited + b"# more\n"


def test_adopted_edits_go_into_the_experiment_and_survive_the_next_change(configs: Path) -> None:
    experiment = configs.parent / "experiments/small.yaml"
    experiment.write_text("# what we train\n" + EXPERIMENT)
    edit(configs / "long/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    result = run("check", configs, "--fix", "--adopt")
    assert result.exit_code == 0, result.stdout
    assert experiment.read_text() == (
        f"# what we train\n{EXPERIMENT}\noverrides:\n  ds_config:\n    steps_per_print: 7\n"
    )
    for name in FRESH:
        assert json.loads((configs / name / "ds_config.json").read_text())["steps_per_print"] == 7
    edit(experiment, "steps: 100", "steps: 100\n  seed: 3")
    assert run("check", configs, "--fix").exit_code == 0
    assert json.loads((configs / "long/ds_config.json").read_text())["steps_per_print"] == 7
    edit(
        configs / "long/ds_config.json", '"steps_per_print": 7', '"steps_per_print": 7,\n  "dump_state": true'
    )
    assert run("check", configs, "--fix", "--adopt").exit_code == 0
    assert experiment.read_text().endswith(
        "overrides:\n  ds_config:\n    steps_per_print: 7\n    dump_state: true\n"
    )


def test_overrides_with_comments_are_not_rewritten(configs: Path) -> None:
    experiment = configs.parent / "experiments/small.yaml"
    own = f"{EXPERIMENT}overrides:\n  ds_config:\n    steps_per_print: 5  # why\n"
    experiment.write_text(own)
    assert run("check", configs, "--fix").exit_code == 0
    edit(
        configs / "long/ds_config.json", '"steps_per_print": 5', '"steps_per_print": 5,\n  "dump_state": true'
    )
    result = run("check", configs, "--fix", "--adopt")
    assert result.exit_code == 1
    assert "cannot be added to by a program" in result.stdout and "dump_state: true" in result.stdout
    assert experiment.read_text() == own
    assert "dump_state" in (configs / "long/ds_config.json").read_text()


def test_directories_of_one_experiment_that_disagree_are_not_adopted(configs: Path) -> None:
    for name, value in (("long", 7), ("small/four", 8)):
        edit(configs / name / "ds_config.json", '"steps_per_print": 100', f'"steps_per_print": {value}')
    result = run("check", configs, "--fix", "--adopt")
    assert result.exit_code == 1
    assert "disagree about steps_per_print" in result.stdout
    assert (configs.parent / "experiments/small.yaml").read_text() == EXPERIMENT


def test_without_a_manifest_edits_are_adopted_into_the_record(configs: Path) -> None:
    edit(configs / "long/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    (configs / "vdsgen.yaml").unlink()
    result = run("check", configs / "long", "--fix", "--adopt")
    assert result.exit_code == 0, result.stdout
    assert "write the same into the experiment" in result.stdout
    assert (
        (configs / "long/train.yaml")
        .read_text()
        .endswith("overrides:\n  ds_config:\n    steps_per_print: 7\n")
    )


def test_what_may_have_been_edited_is_kept_aside_unless_git_holds_it(configs: Path) -> None:
    (configs / "vdsgen.yaml").unlink()
    repository(configs.parent)
    commit(configs.parent)
    edit(configs / "long/train.yaml", "learning_rate: 0.0001", "learning_rate: 0.0002")
    edit(configs / "long/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 9')
    assert run("check", configs / "long", "--fix").exit_code == 0
    names = {path.name for path in (configs / "long").glob("*.edited")}
    assert names == {"ds_config.json.edited"}, "PLAN.md is committed as it was, the edited config is not"


def test_the_manifest_above_counts_up_to_the_root_of_the_repository(configs: Path) -> None:
    edit(configs.parent / "experiments/small.yaml", "steps: 100", "steps: 100\n  seed: 7")
    assert run("check", configs / "long").exit_code == 0, "no repository: nothing above is looked at"
    repository(configs.parent)
    result = run("check", configs / "long")
    assert result.exit_code == 1
    assert "small.yaml was changed since" in result.stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("    out: ../elsewhere", "leads out of the tree"),
        ("    out: /tmp/elsewhere", "is a path of one machine"),
        ("    out: small", "is rendered twice"),
        ("    outt: small", "did you mean out?"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused_with_its_line(
    configs: Path, line: str, message: str
) -> None:
    edit(configs / "vdsgen.yaml", "    out: long", line)
    result = run("check", configs)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "vdsgen.yaml:" in result.stderr


def test_a_link_that_leads_out_of_the_tree_is_not_followed(configs: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (configs / "link").symlink_to(tmp_path / "outside")
    edit(configs / "vdsgen.yaml", "    out: long", "    out: link/long")
    result = run("check", configs, "--fix")
    assert result.exit_code == 2
    assert "leads out of" in result.stderr
    assert not any((tmp_path / "outside").iterdir())


def test_markdown_groups_directories_by_reason_and_escapes_what_strangers_wrote(configs: Path) -> None:
    edit(configs.parent / "experiments/small.yaml", "videos: data/clips", 'videos: "<img src=x>|`a`"')
    result = run("check", configs, "--format", "markdown")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"**vdsgen check** `{configs}`: 3 rendered directories: 3 stale\n")
    assert "\n#### Stale\n" in result.stdout
    assert "<img" not in result.stdout.replace("\\<img", "")


def test_generate_records_what_a_directory_comes_from(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    (tmp_path / "lab.yaml").write_text(LAB)
    arguments = ("generate", tmp_path / "small.yaml", "--lab", tmp_path / "lab.yaml", "--pool", "four")
    record = ("--record", tmp_path / "configs/vdsgen.yaml")
    for name in ("a", "b", "b"):
        result = run(*arguments, "--out", tmp_path / "configs" / name, *record)
        assert result.exit_code == 0, result.stderr
    assert "says so already" in result.stdout
    assert verdicts(tmp_path / "configs") == {"a": "fresh", "b": "fresh"}
    outside = run(*arguments, "--out", tmp_path / "c", *record)
    assert outside.exit_code == 2 and not (tmp_path / "c").exists()
    assert "leads out of the tree" in outside.stderr
    other = run(*arguments, "--out", tmp_path / "configs/a", *record, "--set", "training.steps=5")
    assert other.exit_code == 2 and "comes from something else" in other.stderr


def test_equal_inputs_are_planned_once(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vdsgen.cli import check as command

    asked = []
    plan_again = command.plan_again

    def counted(experiment: Any, pool: Any) -> Any:
        asked.append((experiment.training.steps, pool.name))
        return plan_again(experiment, pool)

    monkeypatch.setattr(command, "plan_again", counted)
    for number in range(5):
        shutil.copytree(configs / "long", configs.parent / f"copies/{number}")
    assert run("check", configs.parent).exit_code == 0
    assert sorted(asked) == [(100, "four"), (100, "two"), (200, "four")]


def test_flags_that_need_fix_are_refused_without_it(configs: Path) -> None:
    for flag in ("--adopt", "--force"):
        result = run("check", configs, flag)
        assert result.exit_code == 2 and "goes with --fix" in result.stderr
