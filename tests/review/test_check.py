"""`check` tells fresh from stale, and stale from edited."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.render.plans import plan_of, small_experiment
from tests.review.directories import edit, plan_for, rendered
from vdsgen.errors import InputError, NoPlanFitsError, VdsgenError
from vdsgen.review.check import Checked, as_text, check
from vdsgen.review.directory import read_directory
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan


def replan(experiment: Experiment, pool: Pool) -> Plan:
    """A planner whose answer depends on the learning rate's neighbour, the seed, and on the pool."""
    return plan_for(experiment, plan_of(accumulation=4, pool=pool, interval=1 + experiment.training.seed))


def checked(path: Path, template_dir: Path | None = None) -> Checked:
    return check(read_directory(path), replan, template_dir)


def verdicts(result: Checked) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in result.findings}


def test_what_was_just_rendered_is_fresh(tmp_path: Path) -> None:
    rendered(tmp_path)
    result = checked(tmp_path)
    assert result.fresh and result.causes == ()
    assert as_text(result) == f"{tmp_path}: fresh\n"


def test_other_files_in_the_directory_do_not_matter(tmp_path: Path) -> None:
    rendered(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert checked(tmp_path).fresh


def test_an_edited_config_is_named_with_its_line(tmp_path: Path) -> None:
    rendered(tmp_path)
    edit(tmp_path / "ds_config.json", '"lr": 0.0001', '"lr": 0.0003')
    result = checked(tmp_path)
    assert verdicts(result) == {"ds_config.json": "edited"}
    text = as_text(result)
    assert "ds_config.json: edited by hand" in text
    assert '-      "lr": 0.0003,' in text and '+      "lr": 0.0001,' in text
    lines = (tmp_path / "ds_config.json").read_text().splitlines()
    edited = lines.index('      "lr": 0.0003,') + 1
    assert f"@@ -{edited - 3},7 +{edited - 3},7 @@" in text


@pytest.mark.parametrize("name", ["hostfile", "launch.sh", "PLAN.md", "train.yaml", "ds_config.json"])
def test_an_edit_that_means_nothing_is_an_edit_all_the_same(tmp_path: Path, name: str) -> None:
    rendered(tmp_path)
    with (tmp_path / name).open("a") as stream:
        stream.write("\n")
    assert verdicts(checked(tmp_path)) == {name: "edited"}


def test_another_value_in_train_yaml_makes_the_plan_stale(tmp_path: Path) -> None:
    rendered(tmp_path)
    edit(tmp_path / "train.yaml", "seed: 0", "seed: 2")
    result = checked(tmp_path)
    assert result.causes == ("train.yaml does not say what was planned for: it was edited since",)
    assert verdicts(result) == {"ds_config.json": "stale", "plan.json": "stale", "PLAN.md": "stale"}
    assert '+    "activation_checkpoint_interval": 3,' in as_text(result)


def test_a_planner_that_decides_otherwise_makes_the_directory_stale(tmp_path: Path) -> None:
    experiment = small_experiment()
    rendered(
        tmp_path, plan_for(experiment, plan_of(accumulation=4, generator="vdsgen 0.0.0-old", interval=4))
    )
    result = checked(tmp_path)
    assert result.causes == ("it was planned by vdsgen 0.0.0-old, this is vdsgen 0.0.0",)
    assert verdicts(result) == {"ds_config.json": "stale", "plan.json": "stale", "PLAN.md": "stale"}


def test_an_edited_plan_is_told_from_a_stale_one(tmp_path: Path) -> None:
    rendered(tmp_path)
    edit(tmp_path / "plan.json", '"step_seconds": 2.5', '"step_seconds": 0.5')
    assert verdicts(checked(tmp_path)) == {"plan.json": "edited"}


def test_an_edited_pool_is_named(tmp_path: Path) -> None:
    rendered(tmp_path)
    edit(tmp_path / "plan.json", '"host_memory_gib": 128.0', '"host_memory_gib": 64.0')
    result = checked(tmp_path)
    assert result.causes == ("the pool in plan.json is not what was planned for: it was edited since",)


def test_another_profile_is_named(tmp_path: Path) -> None:
    directory = rendered(tmp_path)

    def with_another_profile(experiment: Experiment, pool: Pool) -> Plan:
        plan = replan(experiment, pool)
        return plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"profile_sha256": "0" * 64})})

    result = check(directory, with_another_profile)
    assert result.causes == ("the layer profile of vdt-small is another than it was planned with",)
    assert verdicts(result) == {"plan.json": "stale"}


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    rendered(tmp_path)
    (tmp_path / "hostfile").unlink()
    assert verdicts(checked(tmp_path)) == {"hostfile": "missing"}


def test_where_nothing_fits_any_more_that_is_the_cause(tmp_path: Path) -> None:
    def nothing(experiment: Experiment, pool: Pool) -> Plan:
        raise NoPlanFitsError("0.5 GiB too much")

    result = check(rendered(tmp_path), nothing)
    assert not result.fresh
    assert result.causes == ("no plan fits any more: 0.5 GiB too much",)


def test_a_lab_s_templates_are_compared_with_when_they_are_named(tmp_path: Path) -> None:
    rendered(tmp_path / "plan")
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "PLAN.md.j2").write_text("short\n")
    assert verdicts(checked(tmp_path / "plan", templates)) == {"PLAN.md": "edited"}
    (tmp_path / "plan" / "PLAN.md").write_text("short\n")
    assert checked(tmp_path / "plan", templates).fresh


def test_escape_sequences_in_a_file_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    rendered(tmp_path)
    (tmp_path / "hostfile").write_bytes(b"\x1b[31mlocalhost\r slots=4\xff\n")
    text = as_text(checked(tmp_path))
    assert "-\\x1b[31mlocalhost\\r slots=4\\xff" in text
    assert "\x1b" not in text and "\r" not in text


@pytest.mark.parametrize(
    ("name", "content", "where", "message"),
    [
        ("plan.json", '{\n  "schema_version": 1,\n  oops\n}', "plan.json:3:3", "no JSON"),
        ("ds_config.json", '{"a": 1', "ds_config.json:1:8", "no JSON"),
        ("ds_config.json", "[]", "ds_config.json:1:1", "no JSON object but a list"),
        ("ds_config.json", "\xff", "ds_config.json", "no JSON"),
        ("ds_config.json", '{"a": 1, "a": 2}', "ds_config.json", "a is given twice"),
        ("train.yaml", "name: a\ntraining: [1, 2\n", "train.yaml:", ""),
        ("train.yaml", "name: a\n", "train.yaml", "data"),
    ],
)
def test_broken_files_are_named_with_their_place(
    tmp_path: Path, name: str, content: str, where: str, message: str
) -> None:
    rendered(tmp_path)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read_directory(tmp_path)
    assert f"{tmp_path / where}" in str(caught.value)
    assert message in str(caught.value)


def test_a_plan_with_a_wrong_value_is_named_with_its_place(tmp_path: Path) -> None:
    rendered(tmp_path)
    edit(tmp_path / "plan.json", '"world_size": 4', '"world_size": "four"')
    with pytest.raises(InputError) as caught:
        read_directory(tmp_path)
    (problem,) = caught.value.problems
    line = next(
        n for n, text in enumerate((tmp_path / "plan.json").read_text().splitlines(), 1) if "four" in text
    )
    assert (problem.file, problem.line, problem.key) == (
        str(tmp_path / "plan.json"),
        line,
        "parallel.world_size",
    )


def test_a_key_that_plan_json_does_not_have_is_refused(tmp_path: Path) -> None:
    rendered(tmp_path)
    edit(tmp_path / "plan.json", '"world_size": 4', '"world_size": 4, "worldsize": 4')
    with pytest.raises(InputError, match="worldsize"):
        read_directory(tmp_path)


@pytest.mark.parametrize("name", ["plan.json", "train.yaml", "ds_config.json"])
def test_a_directory_without_its_inputs_is_no_rendered_directory(tmp_path: Path, name: str) -> None:
    rendered(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(VdsgenError, match=f"no rendered directory: it has no {name}"):
        read_directory(tmp_path)


def test_a_path_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VdsgenError, match="is a file, a rendered directory is needed"):
        read_directory(tmp_path / "file")
    with pytest.raises(VdsgenError, match="does not exist"):
        read_directory(tmp_path / "nowhere")


def test_a_moved_directory_is_still_fresh(tmp_path: Path) -> None:
    rendered(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert checked(tmp_path / "b").fresh
