from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.inputs import EXPERIMENT, LAB, experiment_problems, lab_problems
from vdsgen.errors import Problem
from vdsgen.spec.architecture import PresetModel, Vdt
from vdsgen.spec.data import Autoencoder
from vdsgen.spec.lab import Gpu
from vdsgen.spec.load import load_experiment, load_lab


def load_text(folder: Path, text: str) -> object:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return load_experiment(path)


def at(problems: list[Problem]) -> dict[str | None, tuple[int | None, int | None]]:
    return {problem.key: (problem.line, problem.column) for problem in problems}


def test_a_lab_loads(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    gpu = "{fp32_tflops: 1e1, memory_bandwidth_gb_per_second: 5}"
    second = f"{{name: b, gpu: {gpu}, gpus_per_node: 1, intra_node: pcie, host_memory_gib: 8}}"
    path.write_text(f"{LAB}    hosts: [a]\n  - {second}\n")
    lab = load_lab(path)
    assert [pool.name for pool in lab.pools] == ["box", "b"]
    assert lab.pools[0].hosts == ("a",)
    assert lab.pools[1].gpu == Gpu(fp32_tflops=10, memory_bandwidth_gb_per_second=5)


def test_an_experiment_loads_with_each_kind_of_model(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    for text, kind in (
        ("vdt-1.5b", str),
        ("{preset: vdt-1.5b, depth: 2}", PresetModel),
        ("{in_channels: 4, patch_size: 2, hidden_size: 8, depth: 1, heads: 2, mlp_hidden_size: 8}", Vdt),
    ):
        path.write_text(EXPERIMENT.replace("vdt-demo", text))
        assert isinstance(load_experiment(path).model, kind)


def test_latents_may_be_an_autoencoder(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    latents = "latents: {codec: autoencoder, path: vae, channels: 4, spatial_factor: 8}"
    path.write_text(EXPERIMENT.replace("  frames:", f"  {latents}\n  frames:"))
    assert isinstance(load_experiment(path).data.latents, Autoencoder)


def test_every_mistake_is_reported_at_once_with_place_and_key(tmp_path: Path) -> None:
    problems = lab_problems(
        tmp_path,
        "pools:\n"
        "  - name: box one\n"
        "    gpu: {memory_gb: 24, fp32_tflops: '71', memory_bandwidth_gb_per_second: 9}\n"
        "    gpus_per_node: 0\n"
        "    intra_node: 12\n"
        "    hosts: [ok, '-x', 3]\n"
        "  - 7\n"
        "labs: 1\n",
    )
    assert at(problems) == {
        "pools[0].name": (2, 11),
        "pools[0].host_memory_gib": (2, 5),
        "pools[0].gpu.memory_gb": (3, 11),
        "pools[0].gpu.fp32_tflops": (3, 39),
        "pools[0].gpus_per_node": (4, 20),
        "pools[0].intra_node": (5, 17),
        "pools[0].hosts[1]": (6, 17),
        "pools[0].hosts[2]": (6, 23),
        "pools[1]": (7, 5),
        "labs": (8, 1),
    }
    assert all(problem.file and problem.file.endswith("lab.yaml") for problem in problems)


@pytest.mark.parametrize(
    ("line", "key", "given", "expected"),
    [
        ("gpus_per_node: 0", "gpus_per_node", "0", "a whole number above 0"),
        ("gpus_per_node: -4", "gpus_per_node", "-4", "a whole number above 0"),
        ("gpus_per_node: four", "gpus_per_node", "'four'", "a whole number above 0"),
        ("gpus_per_node: true", "gpus_per_node", "true", "a whole number above 0"),
        ("gpus_per_node: [4]", "gpus_per_node", "a list", "a whole number above 0"),
        ("gpus_per_node: {a: 4}", "gpus_per_node", "a mapping", "a whole number above 0"),
        ("gpus_per_node:", "gpus_per_node", "nothing", "a whole number above 0"),
        ("gpus_per_node: 1e16", "gpus_per_node", "1e+16", "a whole number above 0"),
        ("memory_reserve_fraction: 2", "memory_reserve_fraction", "2", "a number from 0 to 1"),
        ("gpu: [a]", "gpu", "a list", "a catalogue name"),
        ("gpu: ''", "gpu", "''", "a catalogue name"),
        ("name: ../x", "name", "'../x'", "a name"),
        ("name: '{{ 7*7 }}'", "name", "'{{ 7*7 }}'", "a name"),
        ('name: "a\\e[31m"', "name", "a\\x1b[31m", "a name"),
        ("name: -x", "name", "'-x'", "a name"),
        ("name: 12", "name", "12", "a name"),
        ("nvme: fast", "nvme", "'fast'", "a mapping with path"),
        ("hosts: a", "hosts", "'a'", "a list"),
    ],
)
def test_messages_say_what_is_there_and_what_is_expected(
    tmp_path: Path, line: str, key: str, given: str, expected: str
) -> None:
    rest = [kept for kept in LAB.splitlines() if not kept.strip(" -").startswith(f"{key}:")]
    entries = [kept.strip(" -") for kept in rest[1:]]
    text = "pools:\n  - " + "\n    ".join([*entries, line]) + "\n"
    (problem,) = lab_problems(tmp_path, text)
    assert problem.key == f"pools[0].{key}"
    assert problem.line == text.count("\n")
    assert f"expected {expected}" in problem.message
    assert given in problem.message
    assert "\x1b" not in str(problem)


def test_no_message_speaks_pydantic(tmp_path: Path) -> None:
    broken = EXPERIMENT.replace("frames: 8", "frames: x").replace("height: 64", "hight: 64") + (
        "  optimizer: adam\n  diffusion: {shift: big, prediction: x0}\n  saving: []\n"
        "constraints: {zero_stage: 4}\nmodel2: {}\n"
    )
    text = "\n".join(str(problem) for problem in experiment_problems(tmp_path, broken))
    for word in ("Input should", "Value error", "validation", "constrained", "literal", "pydantic", "type="):
        assert word not in text


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ("frames: 8", "frames: 8\n  randomflip: true", "did you mean random_flip?"),
        ("steps: 100", "steps: 100\n  lr: 1e-3", "did you mean training.optimizer.learning_rate?"),
        ("steps: 100", "steps: 100\n  Precision: bf16", "did you mean precision?"),
        ("steps: 100", "steps: 100\n  frame_rate: 8", "did you mean data.frame_rate?"),
        ("steps: 100", "steps: 100\n  zero_stage: 1", "did you mean constraints.zero_stage?"),
        ("steps: 100", "steps: 100\n  qqq: 1", "keys under training: global_batch_size"),
        ("steps: 100", "steps: 100\n  precision: bfl6", "did you mean bf16?"),
        ("steps: 100", "steps: 100\n  optimizer: adamw", "write {type: adamw}"),
        ("steps: 100", "steps: 1_00", "write 100, without quotes"),
        ("steps: 100", "steps: '100'", "write 100, without quotes"),
        ("steps: 100", "steps: 1e2", "write 100"),
        ("frames: 8", "frames: 8 frames", "write the number alone"),
        ("frames: 8", "frames: 8\n  random_flip: yes", "write true; yes is text in YAML 1.2"),
        ("frames: 8", "frames: 8\n  workers:", "remove the key to get its default"),
        ("frames: 8", "frames: 8\n  videos2: 1", "did you mean videos?"),
        ("frames: 8", "frames: 8\n  latents: space_to_depth", "write {codec: space_to_depth}"),
        ("frames: 8", "frames: 8\n  latents: {codec: auto_encoder}", "did you mean autoencoder?"),
        ("model: vdt-demo", "model: {preset: vdt-demo, depht: 3}", "did you mean depth?"),
        ("model: vdt-demo", "model: {preset: vdt-demo, heads: 3}", "keys under model"),
        (
            "model: vdt-demo",
            "model: {preset: vdt-demo, position: learned, max_frames: 8, heads: 3}",
            "keys under model: preset, in_channels",
        ),
    ],
)
def test_remedies_say_what_to_write(tmp_path: Path, old: str, new: str, remedy: str) -> None:
    (problem,) = experiment_problems(tmp_path, EXPERIMENT.replace(old, new))
    assert problem.remedy is not None
    assert remedy in problem.remedy


def test_a_misspelt_key_is_not_also_reported_as_missing(tmp_path: Path) -> None:
    (problem,) = experiment_problems(tmp_path, EXPERIMENT.replace("width", "widht"))
    assert (problem.key, problem.line) == ("data.widht", 7)


def test_a_missing_key_is_placed_at_its_parent_and_says_what_it_is_for(tmp_path: Path) -> None:
    (problem,) = experiment_problems(tmp_path, EXPERIMENT.replace("  global_batch_size: 8\n", ""))
    assert (problem.key, problem.line, problem.column) == ("training.global_batch_size", 8, 1)
    assert "is missing; expected a whole number above 0" in problem.message
    assert problem.remedy is not None
    assert "Clips that one optimizer step sees" in problem.remedy


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("{hidden_size: 8, depth: two}", {"model.depth", "model.heads", "model.in_channels",
                                         "model.mlp_hidden_size", "model.patch_size"}),
        ("{family: vdt, depth: 1}", {"model.heads", "model.hidden_size", "model.in_channels",
                                     "model.mlp_hidden_size", "model.patch_size"}),
        ("{preset: x, depth: 0}", {"model.depth"}),
        ("{preset: 3}", {"model.preset"}),
        ("{}", {"model"}),
        ("{a: 1}", {"model"}),
        ("[vdt-demo]", {"model"}),
        ("3", {"model"}),
    ],
)  # fmt: skip
def test_only_the_kind_of_model_that_was_meant_is_spoken_of(
    tmp_path: Path, model: str, keys: set[str]
) -> None:
    problems = experiment_problems(tmp_path, EXPERIMENT.replace("vdt-demo", model))
    assert {problem.key for problem in problems} == keys


@pytest.mark.parametrize(
    ("old", "new", "key", "line"),
    [
        ("height: 64", "height: 65", "data.height", 6),
        ("steps: 100", "steps: 100\n  schedule: {warmup_steps: 101}", "training.schedule.warmup_steps", 11),
        ("steps: 100", "steps: 100\n  loss_scaling:\n    initial_loss_scale: 3",
         "training.loss_scaling.initial_loss_scale", 12),
        ("model: vdt-demo", "model:\n  family: vdt\n  in_channels: 4\n  patch_size: 2\n  hidden_size: 7\n"
         "  depth: 1\n  heads: 2\n  mlp_hidden_size: 8", "model.heads", 8),
        ("frames: 8", "frames: 8\n  latents: {codec: autoencoder, path: x, channels: 4, spatial_factor: 8,"
         " temporal_factor: 4}", "data.frames", 5),
        ("width: 64", "width: 64\n  buckets:\n    - {frames: 4, height: 64, width: 32}\n"
         "    - frames: 4\n      height: 60\n      width: 64", "data.buckets[1].height", 11),
        ("width: 64", "width: 64\n  latents: {codec: autoencoder, path: x, channels: 4, spatial_factor: 8,"
         " temporal_factor: 7}\n  buckets:\n    - {height: 64, width: 32, frames: 7}",
         "data.buckets[0].frames", 10),
        ("width: 64", "width: 64\n  buckets:\n    - {frames: 4, height: 64, width: 64}\n"
         "    - {frames: 8, height: 64, width: 64}", "data.buckets[1]", 10),
        ("width: 64", "width: 64\n  buckets:\n    - {frames: 4, height: 64, width: 64}\n"
         "    - {frames: 4, height: 64, width: 64}", "data.buckets[1]", 10),
    ],
)  # fmt: skip
def test_rules_over_several_keys_point_at_one(
    tmp_path: Path, old: str, new: str, key: str, line: int
) -> None:
    (problem,) = experiment_problems(tmp_path, EXPERIMENT.replace(old, new))
    assert (problem.key, problem.line) == (key, line)


def test_pools_that_contradict_themselves(tmp_path: Path) -> None:
    problems = lab_problems(tmp_path, LAB.replace("gpus_per_node", "nodes: 2\n    gpus_per_node"))
    assert [(problem.key, problem.line) for problem in problems] == [("pools[0].inter_node", 2)]
    second = "\n".join(LAB.splitlines()[1:])
    (problem,) = lab_problems(tmp_path, f"{LAB}{second}\n")
    assert (problem.key, problem.line) == ("pools[1].name", 7)
    problems = lab_problems(tmp_path, LAB + "    hosts: [a, b]\n")
    assert [problem.key for problem in problems] == ["pools[0].hosts"]


@pytest.mark.parametrize("text", ["[]", "3", "text", "pools: []", "pools: {}", "pools:", "{}"])
def test_files_of_another_shape(tmp_path: Path, text: str) -> None:
    (problem,) = lab_problems(tmp_path, text)
    assert problem.line == 1
    assert "expected" in problem.message


def test_lists_of_another_length_say_so(tmp_path: Path) -> None:
    (problem,) = lab_problems(tmp_path, "pools: []")
    assert "at least 1 item, given 0" in problem.message


def test_surrogates_and_huge_numbers_are_refused(tmp_path: Path) -> None:
    assert experiment_problems(tmp_path, EXPERIMENT.replace("clips\n", '"\\uD800"\n'))
    (problem,) = experiment_problems(tmp_path, EXPERIMENT.replace("steps: 100", f"steps: {'9' * 30}"))
    assert "too large" in problem.message


def test_equal_specs_are_equal_however_they_are_written(tmp_path: Path) -> None:
    flow = "{training: {steps: 100, global_batch_size: 8}, name: clips, model: vdt-demo,"
    flow += " data: {width: 64, height: 64, frames: 8, videos: clips}}"
    assert load_text(tmp_path, flow) == load_text(tmp_path, EXPERIMENT)
