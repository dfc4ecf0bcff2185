"""Exported folders are loaded by the programs that they are for, and predict what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

from tests.model.export.runs import STEP, write_run
from tests.model.families.stages import SEED, built, in_stages
from tests.model.families.test_adapters import adapted, changing
from tests.model.families.tiny import TINY, Tiny
from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.model.export.export import checkpoint_of, export
from vdsgen.model.export.safetensors_folder import in_files, write_folder
from vdsgen.model.export.stored import Stored, load, trained_weights
from vdsgen.model.families.skeleton import model_class
from vdsgen.model.folder import VdtFolder, load_model, started_from
from vdsgen.model.pipeline import SequentialModel, layer_specs
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.recipes import CLASSES
from vdsgen.spec.training import Lora

DATA = {"videos": "clips", "frames": 4, "height": 16, "width": 16}


def experiment(model: dict[str, Any], **training: Any) -> str:
    training = {"global_batch_size": 2, "steps": 9, "seed": SEED, **training}
    return yaml.safe_dump({"name": "x", "model": model, "data": DATA, "training": training})


def of_diffusers(model: Tiny) -> dict[str, Any]:
    return {"family": "diffusers", "name": "x", "class_name": model.class_name, "config": dict(model.config)}


def is_trained(model: Tiny) -> bool:
    """Whether the family's recipe takes this configuration; some are cut for parity alone."""
    try:
        DiffusersModel.model_validate(of_diffusers(model))
    except ValueError:
        return False
    return True


TRAINED = [name for name, model in TINY.items() if is_trained(model)]


def test_every_class_is_exported() -> None:
    assert {TINY[name].class_name for name in TRAINED} == set(CLASSES)


@pytest.mark.parametrize("name", TRAINED)
def test_diffusers_loads_an_exported_model_and_predicts_the_same(name: str, tmp_path: Path) -> None:
    model = TINY[name]
    layers = built(model)
    for layer in layers:
        randomise(layer, SEED)
    write_run(tmp_path / "run", layers, experiment(of_diffusers(model)))
    done = export(tmp_path / "run", tmp_path / "out")
    assert (done.kind, done.step) == ("model", STEP)
    theirs = model_class(model.class_name).from_pretrained(tmp_path / "out")
    assert {key: theirs.config[key] for key in model.config} == {
        key: tuple(value) if isinstance(theirs.config[key], tuple) else value
        for key, value in model.config.items()
    }
    inputs = model.inputs()
    with torch.no_grad():
        ours = in_stages(layers, 1, inputs, None)
        assert torch.allclose(model.forward(theirs.eval(), inputs), ours, rtol=1e-4, atol=1e-5)
        again = built(replace(model, weights=str(tmp_path / "out")), seed=99)
        assert torch.equal(in_stages(again, 1, inputs, None), ours)


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_diffusers_loads_exported_adapters_and_predicts_the_same(alpha: float | None, tmp_path: Path) -> None:
    model = TINY["wan"]
    layers = changing(adapted(model, Lora(rank=3, alpha=alpha)))
    base = tmp_path / "base"
    frozen = experiment(of_diffusers(model))
    plain = built(model)
    write_run(tmp_path / "plain" / "run", plain, frozen)
    export(tmp_path / "plain" / "run", base)
    lora = {"rank": 3} if alpha is None else {"rank": 3, "alpha": alpha}
    write_run(tmp_path / "run", layers, experiment(of_diffusers(model), method="lora", lora=lora))
    done = export(tmp_path / "run", tmp_path / "out")
    assert done.kind == "adapters"
    theirs = model_class(model.class_name).from_pretrained(base)
    inputs = model.inputs()
    with torch.no_grad():
        before = model.forward(theirs.eval(), inputs)
        theirs.load_lora_adapter(str(tmp_path / "out"), prefix="transformer", use_safetensors=True)
        after = model.forward(theirs.eval(), inputs)
        assert not torch.allclose(after, before, atol=1e-3)
        assert torch.allclose(after, in_stages(layers, 1, inputs, None), atol=1e-6)


VDT = tiny()
WHERE = geometry(VDT)


def vdt_layers() -> list[nn.Module]:
    layers: list[nn.Module] = [spec.build() for spec in layer_specs(VDT, WHERE, 0)]
    for index, layer in enumerate(layers):
        randomise(layer, index)
    return layers


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Of the bundled family."""
    write_run(tmp_path / "run", vdt_layers(), experiment(VDT.model_dump(mode="json")))
    return tmp_path / "run"


def test_an_exported_model_of_the_bundled_family_predicts_the_same(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["export", str(run), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert f"weights after {STEP} steps" in result.output and "model.safetensors" in result.output
    inputs, _ = random_batch(VDT, WHERE)
    expected: Any = inputs
    with torch.no_grad():
        for layer in vdt_layers():
            expected = layer(expected)
        assert torch.equal(load_model(tmp_path / "out", WHERE)(inputs), expected)


def test_a_checkpoint_is_exported_as_well_as_its_run(run: Path, tmp_path: Path) -> None:
    checkpoint = next((run / "checkpoints").iterdir())
    assert checkpoint_of(checkpoint)[1] == checkpoint_of(run)[1]
    export(checkpoint, tmp_path / "out")
    assert len(load_file(tmp_path / "out" / "model.safetensors")) > 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: next(run.rglob("layer_01*")).write_bytes(b""), "has no complete checkpoint: .*damaged"),
        (lambda run: (run.parent / "rendered" / "train.yaml").unlink(), "it says what model"),
    ],
)
def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(run)
    with pytest.raises(VdsgenError, match=message):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_averages_are_asked_for_in_vain_where_there_are_none(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["export", str(run), "--out", str(tmp_path / "out"), "--ema"])
    assert result.exit_code == 2
    assert "has no averaged weights" in result.output


def test_nothing_is_written_over(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    with pytest.raises(VdsgenError, match="is no empty folder"):
        export(run, tmp_path / "out")


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code in a checkpoint was run')",)


def test_code_in_a_checkpoint_is_not_run(run: Path) -> None:
    folder, record = checkpoint_of(run)
    torch.save({"weight": torch.zeros(2), "other": Bomb()}, folder / "layer_00-model_states.pt")
    with pytest.raises(VdsgenError, match="names exec, which no checkpoint"):
        trained_weights(folder, record)
    with pytest.raises(VdsgenError, match="cannot be read"):
        load(folder / "nowhere.pt")


def test_large_models_are_in_several_files_with_an_index(tmp_path: Path) -> None:
    tensors = {f"{index}.w": torch.full((index + 1, 5), float(index)) for index in range(6)}
    stored = {
        name: Stored(tuple(x.shape), x.dtype, lambda x=x: x)  # type: ignore[misc]
        for name, x in tensors.items()
    }
    assert in_files(stored, 130) == [["0.w", "1.w", "2.w"], ["3.w"], ["4.w"], ["5.w"]]
    files = write_folder(tmp_path / "out", {"_class_name": "X"}, stored, "model", file_bytes=130)
    assert [path.name for path in files] == [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.numel() * 4 for x in tensors.values())
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / "out" / file)[name], tensors[name])


def test_a_run_starts_from_no_other_model(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    other = tiny(hidden_size=32)
    with pytest.raises(VdsgenError, match="hidden_size: 24 there, 32 here"):
        started_from(layer_specs(other, geometry(other), 0), other, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')
    with pytest.raises(VdsgenError, match="not of vdsgen's own family"):
        VdtFolder(tmp_path / "out")


def test_layers_that_start_from_a_folder_have_its_weights(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    model = SequentialModel(
        started_from(layer_specs(VDT, WHERE, 3), VDT, tmp_path / "out"), 0, torch.nn.functional.mse_loss
    )
    for index, layer in enumerate(vdt_layers()):
        for name, parameter in layer.named_parameters():
            assert torch.equal(model.get_parameter(f"{index}.{name}"), parameter)
