"""What a rendered directory holds, for any plan and experiment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from tests.render.plans import AWKWARD_PATHS, experiments, plan_of, plans, pool_of, small_experiment
from vdsgen.render.render import FILES, render_plan
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


def rendered_text(name: str, plan: Plan | None = None, experiment: Experiment | None = None) -> str:
    return render_plan(plan or plan_of(), experiment or small_experiment())[name].decode()


def ds_config(plan: Plan | None = None, experiment: Experiment | None = None) -> dict[str, Any]:
    config = json.loads(rendered_text("ds_config.json", plan, experiment))
    assert isinstance(config, dict)
    return config


@settings(max_examples=60, deadline=None)
@given(plan=plans(), experiment=experiments())
def test_what_is_rendered_reads_back_as_what_was_planned(plan: Plan, experiment: Experiment) -> None:
    files = render_plan(plan, experiment)
    assert tuple(files) == FILES
    assert Plan.model_validate_json(files["plan.json"]) == plan
    loaded = yaml.safe_load(files["train.yaml"])
    assert Experiment.model_validate_json(json.dumps(loaded)) == experiment
    config = json.loads(files["ds_config.json"])
    assert config["train_batch_size"] == (
        config["train_micro_batch_size_per_gpu"]
        * config["gradient_accumulation_steps"]
        * plan.parallel.data_parallel_size
    )
    assert config["pipeline"]["partition"][-1] == plan.model.layers
    assert len(config["pipeline"]["partition"]) == plan.parallel.pipeline_parallel_size + 1
    assert all(files[name].endswith(b"\n") and b"\r" not in files[name] for name in FILES)


@settings(max_examples=40, deadline=None)
@given(path=AWKWARD_PATHS)
def test_free_text_appears_literally_and_is_never_run(path: str) -> None:
    experiment = small_experiment()
    experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update={"videos": path})})
    files = render_plan(plan_of(), experiment)
    assert yaml.safe_load(files["train.yaml"])["data"]["videos"] == path
    assert " ".join(path.split()) in files["PLAN.md"].decode()
    assert files["launch.sh"] == render_plan(plan_of(), small_experiment())["launch.sh"]


def test_a_sentence_of_the_plan_is_no_markup() -> None:
    plan = plan_of(reasons=("<img src=x> *bold* [a](b) _i_ a_b_c `x` | y",))
    text = rendered_text("PLAN.md", plan)
    assert r"- \<img src=x\> \*bold\* \[a\](b) \_i\_ a_b_c \`x\` \| y" in text


def test_the_article_s_settings_in_the_engine_s_words() -> None:
    plan = plan_of(accumulation=8, interval=3)
    assert ds_config(plan) == {
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 8,
        "pipeline": {
            "stages": 2,
            "partition": [0, 3, 6],
            "activation_checkpoint_interval": 3,
            "use_reentrant": False,
        },
        "zero_optimization": {
            "stage": 1,
            "reduce_bucket_size": 5_000_000,
            "reduce_scatter": True,
            "contiguous_gradients": False,
            "overlap_comm": False,
            "allgather_bucket_size": 4_000_000,
            "round_robin_gradients": False,
        },
        "fp16": {
            "enabled": True,
            "loss_scale": 0,
            "initial_scale_power": 9,
            "loss_scale_window": 2000,
            "min_loss_scale": 1,
            "hysteresis": 2,
        },
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": 1e-4,
                "betas": [0.9, 0.95],
                "eps": 1e-8,
                "weight_decay": 0.01,
                "torch_adam": True,
                "fused": True,
            },
        },
        "gradient_clipping": 1.0,
        "steps_per_print": 100,
    }


def test_short_lists_of_numbers_stay_on_one_line() -> None:
    assert '"partition": [0, 3, 6],' in rendered_text("ds_config.json")


def test_no_clipping_and_no_warm_up_leave_their_keys_out() -> None:
    config = ds_config(experiment=small_experiment(gradient_clipping=0.0))
    assert config["gradient_clipping"] == 0.0
    assert "scheduler" not in config


@pytest.mark.parametrize(
    ("dtype", "accumulation", "section", "data_types"),
    [
        ("fp32", "fp32", None, None),
        ("bf16", "bf16", "bf16", None),
        ("bf16", "fp32", "bf16", {"grad_accum_dtype": "fp32"}),
        ("fp16", "fp16", "fp16", None),
        ("fp16", "fp32", "fp16", {"grad_accum_dtype": "fp32"}),
    ],
)
def test_precision_has_only_its_own_section(
    dtype: str, accumulation: str, section: str | None, data_types: dict[str, str] | None
) -> None:
    config = ds_config(plan_of(dtype=dtype, accumulation_dtype=accumulation))
    assert {key for key in ("fp16", "bf16") if key in config} == ({section} if section else set())
    assert config.get("data_types") == data_types


def test_hostfile_names_the_lab_s_hosts() -> None:
    pool = pool_of(2, 4, ("node-1", "node-2.lab"))
    assert rendered_text("hostfile", plan_of(data=4, pool=pool)) == "node-1 slots=4\nnode-2.lab slots=4\n"


@pytest.mark.parametrize(
    ("ranks", "lines"),
    [(8, ["node-1 slots=4", "node-2 slots=4"]), (4, ["node-1 slots=4"]), (2, ["node-1 slots=2"])],
)
def test_a_plan_for_part_of_the_pool_names_only_what_it_uses(ranks: int, lines: list[str]) -> None:
    plan = plan_of(data=ranks // 2, pool=pool_of(2, 4, ("node-1", "node-2")))
    assert rendered_text("hostfile", plan).splitlines() == lines


def test_one_node_without_a_name_is_this_one() -> None:
    assert rendered_text("hostfile") == "localhost slots=4\n"


def test_several_nodes_without_names_get_a_hostfile_that_says_so() -> None:
    text = rendered_text("hostfile", plan_of(data=4, pool=pool_of(2, 4)))
    assert all(line.startswith("#") for line in text.splitlines())
    assert "2 nodes" in text and "slots=4" in text and "hosts:" in text


HASH_PROGRAM = """
import hashlib
from tests.render.plans import plan_of, small_experiment
from vdsgen.render.render import render_plan
digest = hashlib.sha256()
for name, content in render_plan(plan_of(), small_experiment()).items():
    digest.update(name.encode() + content)
import sys
assert not {"torch", "deepspeed"} & set(sys.modules), "rendering imports the training side"
print(digest.hexdigest())
"""


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_bytes_do_not_depend_on_the_hash_seed_or_the_locale(seed: str) -> None:
    here = hashlib.sha256()
    for name, content in render_plan(plan_of(), small_experiment()).items():
        here.update(name.encode() + content)
    environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "Asia/Tokyo"}
    result = subprocess.run(
        [sys.executable, "-c", HASH_PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == here.hexdigest()
