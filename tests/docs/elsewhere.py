"""Commands of pages that start ranks, measure, or need hosts: the tests that execute each.

The words of a command (its subcommand, and every option) must stand in the sources of its tests, as they are
or as `said_as` has them: where a test calls what is behind the command line, or forks ranks.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.blocks import ROOT, Command


@dataclass(frozen=True)
class Elsewhere:
    """What executes commands that match `pattern` (as a whole)."""

    pattern: str
    tests: tuple[str, ...]
    """As pytest names them, without parameters; of a fixture that many tests share, one of these tests."""
    said_as: dict[str, str] = field(default_factory=dict)
    through: tuple[str, ...] = ()
    """Files of helpers that say the words for the tests."""

    def matches(self, command: Command) -> bool:
        return re.fullmatch(self.pattern, command.text) is not None

    def missing_tests(self) -> list[str]:
        return [test for test in self.tests if not _is_there(test)]

    def missing_words(self, command: Command) -> list[str]:
        """Words of the command that no source of its tests says."""
        files = {test.partition("::")[0] for test in self.tests} | set(self.through)
        text = "\n".join((ROOT / name).read_text("utf-8") for name in files)
        asked = [self.said_as.get(word, _quoted(word)) for word in demanding_words(command)]
        return [word for word in asked if word not in text]


def demanding_words(command: Command) -> list[str]:
    """A vdsgen command's subcommand and options; the module of `python -m`."""
    words = command.words
    if words[:2] == ["python", "-m"]:
        return [words[2]]
    options = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
    return [words[1], *options]


def _quoted(word: str) -> str:
    """As a test's argument list has it; of `python -m`, the module's name."""
    return word if "." in word else f'"{word}"'


def _is_there(test: str) -> bool:
    name, _, function = test.partition("::")
    path = ROOT / name
    if not path.is_file():
        return False
    tree = ast.parse(Path(path).read_text("utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)


TRAINING = "tests/model/training.py"
RESUMED = "tests/model/test_train.py::test_a_killed_rank_ends_the_job_and_it_resumes_to_the_same_losses"
VERIFIED = "tests/verify/test_run.py::test_verdicts"
EXPORTED = "tests/model/export/test_export.py::test_an_exported_model_of_the_bundled_family_predicts_the_same"
AVERAGES = "tests/model/export/test_export.py::test_averages_are_asked_for_in_vain_where_there_are_none"
PREFLIGHT = "tests/launch/hosts/test_preflight.py::test_two_steps_of_the_real_job_are_rehearsed_and_removed"
FAULTS = "tests/launch/hosts/test_faults.py::test_the_command_says_what_it_found_and_ends_with_1"
REFUSED = "tests/launch/hosts/test_faults.py::test_a_launch_is_refused_with_everything_at_once"
KILLED = "tests/campaigns/test_kills.py::test_a_run_that_is_killed_and_stopped_trains_as_if_nothing_had_been"
REPLANNED = "tests/cli/test_replan.py::test_a_plan_for_what_is_left_is_shown_written_and_started"
LAYOUTS = "tests/model/test_train.py::test_a_run_goes_on_in_another_layout"
SSH = (
    "tests/launch/backends/test_hosts.py"
    "::test_a_training_on_two_hosts_is_the_same_and_ends_with_a_killed_rank"
)
SLURM = (
    "tests/launch/backends/test_slurm.py"
    "::test_a_job_near_its_limit_and_a_preempted_one_go_on_from_their_checkpoints"
)

COMMANDS = (
    Elsewhere(r"vdsgen verify \S+( --stage \d+)?( --json)?", (VERIFIED,)),
    Elsewhere(r"vdsgen preflight \S+ --output \S+", (PREFLIGHT,)),
    Elsewhere(r"vdsgen preflight \S+ --output \S+ --no-links", (FAULTS,)),
    Elsewhere(r"vdsgen launch plan --output run", (REFUSED,)),
    Elsewhere(r"vdsgen launch \S+ --output \S+( --resume)?( --steps \d+)?", (RESUMED,), through=(TRAINING,)),
    Elsewhere(
        r"vdsgen launch \S+ --output \S+ --restarts \d+( --hang-seconds \d+ --steps \d+)?",
        (KILLED,),
        through=("tests/campaigns/kills.py", "tests/campaigns/launched.py"),
    ),
    Elsewhere(
        r"vdsgen launch \S+ --output \S+ --resume --replan --gpus \d+( --launcher torchrun)?",
        (REPLANNED, LAYOUTS),
        said_as={"--launcher": 'launcher="deepspeed"'},
        through=(TRAINING,),
    ),
    Elsewhere(
        r"vdsgen launch plan --output run --launcher ssh --measure --steps 10",
        (SSH,),
        said_as={"--steps": '{"steps": 100_000}'},
        through=(TRAINING,),
    ),
    Elsewhere(
        r"vdsgen launch jobs --output runs/1 --launcher slurm --steps 400",
        (SLURM,),
        said_as={"--steps": "steps=100_000"},
        through=(TRAINING,),
    ),
    Elsewhere(r"scancel --signal=USR1 --batch 1", (SLURM,)),
    Elsewhere(r"scontrol show job 1 .*", (SLURM,)),
    Elsewhere(r"grep -h 'from step' .*", (SLURM,), said_as={"-h": '"from step"'}),
    Elsewhere(r"vdsgen export \S+ --out \S+", (EXPORTED,)),
    Elsewhere(r"vdsgen export \S+ --out \S+ --ema", (AVERAGES,)),
    Elsewhere(
        r"vdsgen ablate .* --steps 4 --plans .* --out \S+",
        ("tests/ablate/test_ablate.py::test_killed_and_given_again_it_measures_every_plan_once",),
    ),
    Elsewhere(
        r"vdsgen scan( --out \S+)?",
        ("tests/cli/test_scan.py::test_plans_are_made_from_what_it_writes",),
    ),
    Elsewhere(
        r"vdsgen scan --hosts hosts( --together)?",
        ("tests/cli/test_scan.py::test_hosts_that_are_not_written_set_the_exit_code",),
    ),
    Elsewhere(
        r"vdsgen profile \S+",
        (
            "tests/cli/test_profile.py::test_standard_output_carries_the_profile_alone_and_it_is_the_committed_one_to_the_letter",
        ),
    ),
    Elsewhere(
        r"vdsgen profile --all --out \S+",
        (
            "tests/profile/test_build.py::test_committed_profiles_are_what_the_layers_cost_now",
            "tests/profile/test_pretrained.py::test_committed_profiles_are_what_diffusers_classes_cost_now",
            "tests/cli/test_profile.py::test_unclear_demands_are_refused",
        ),
    ),
    Elsewhere(
        r"vdsgen validate( other\.csv --json)?",
        ("tests/cli/test_validate.py::test_json_is_one_document_on_standard_output",),
    ),
    Elsewhere(
        r"vdsgen validate --rows \S+",
        ("tests/cli/test_validate.py::test_rows_can_be_chosen",),
    ),
    Elsewhere(
        r"vdsgen check configs",
        ("tests/cli/test_check_trees.py::test_an_edit_that_can_be_an_override_is_told_so_with_its_lines",),
    ),
    Elsewhere(
        r"vdsgen check configs --fix --adopt",
        (
            "tests/cli/test_check_trees.py::test_adopted_edits_go_into_the_experiment_and_survive_the_next_change",
        ),
    ),
    Elsewhere(
        r"vdsgen plan experiments/mine\.yaml .*",
        ("tests/review/test_overridden.py::test_generate_names_the_line_of_the_experiment",),
        said_as={"plan": "generate(tmp_path", "--lab": "experiment=own"},
    ),
    Elsewhere(
        r"vdsgen diff (main\.\.\.larger-batch|main\.\.\.?feature( configs)?|HEAD~3)",
        (
            "tests/cli/test_diff_trees.py"
            "::test_two_dots_compare_two_revisions_and_three_what_one_did_since_they_parted",
        ),
    ),
    Elsewhere(
        r"vdsgen diff planned edited",
        ("tests/review/test_repredict.py::test_offload_moves_optimizer_states_and_takes_time",),
        said_as={"diff": "offload_optimizer"},
    ),
    Elsewhere(
        r"git diff main\.\.larger-batch .*",
        ("tests/cli/test_git.py::test_git_shows_a_directory_s_change_once",),
    ),
    Elsewhere(
        r"vdsgen git (un)?install( --hook)?",
        (
            "tests/cli/test_git.py"
            "::test_installing_twice_changes_nothing_and_uninstalling_takes_everything_away",
        ),
    ),
    Elsewhere(
        r"python -m tests\.campaigns\.fuzz .*",
        ("tests/campaigns/test_fuzz.py::test_a_slice_of_the_campaign_breaks_no_promise",),
    ),
)
