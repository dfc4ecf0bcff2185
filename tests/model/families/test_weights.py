"""Layers get their weights one by one: drawn from a seed, or read from a folder that diffusers wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.model.families.stages import built, in_stages, unwrapped, whole_state
from tests.model.families.tiny import TINY, Tiny
from vdsgen.errors import VdsgenError
from vdsgen.model.families import folder as folders
from vdsgen.model.families.family import constants_of
from vdsgen.model.families.layer_specs import diffusers_layer_specs
from vdsgen.model.families.skeleton import model_class

WAN = TINY["wan"]
ONE_FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that diffusers made and saved, in several files."""
    torch.manual_seed(3)
    model_class(WAN.class_name).from_config(dict(WAN.config)).save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    return tmp_path


def test_random_weights_follow_from_seed_and_layer_alone() -> None:
    """Whatever was built or drawn before, as in other layouts of ranks; and as wide as diffusers' own."""
    before = torch.get_rng_state()
    first = whole_state(built(WAN, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    alone = diffusers_layer_specs(WAN, 1)[2].build()
    for own, name in alone.diffusers_names.items():
        assert torch.equal(alone.state_dict()[own], first[name])
    other = whole_state(built(WAN, 2))
    theirs = unwrapped(WAN, built(WAN, 1)).from_config(dict(WAN.config)).state_dict()
    for name, drawn in first.items():
        if theirs[name].std() > 0:
            assert not torch.equal(drawn, other[name])
            assert 0.5 < float(drawn.std() / theirs[name].std()) < 2
        else:
            assert torch.equal(drawn, theirs[name])
    block = first["blocks.0.attn1.to_q.weight"]
    assert not torch.equal(block, first["blocks.1.attn1.to_q.weight"])


def test_a_skeleton_holds_next_to_nothing_and_its_layers_can_be_built_again() -> None:
    specs = diffusers_layer_specs(WAN, 1)
    once, again = specs[1].build(), specs[1].build()
    for ours, theirs in zip(once.parameters(), again.parameters(), strict=True):
        assert ours is not theirs and torch.equal(ours, theirs)
    assert once.layer.tables is again.layer.tables
    skeleton = specs[1].module_args[0]
    linear = [p for cut in skeleton.layers for n, p in cut.module.named_parameters() if "to_q" in n]
    assert linear and all(p.is_meta for p in linear)


def test_layers_read_their_own_tensors_from_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Spy:
        def __init__(self, path: Path) -> None:
            self.file = opened(path)

        def __enter__(self) -> Spy:
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def get_slice(self, name: str) -> Any:
            return self.file.get_slice(name)

        def get_tensor(self, name: str) -> Any:
            read.append(name)
            return self.file.get_tensor(name)

    opened = folders._opened
    monkeypatch.setattr(folders, "_opened", Spy)
    specs = diffusers_layer_specs(replace(WAN, weights=str(folder)), 1)
    block = specs[2].build()
    assert sorted(read) == sorted(block.diffusers_names.values())
    layers = [spec.build() for spec in specs]
    model = model_class(WAN.class_name).from_pretrained(folder)
    inputs = WAN.inputs()
    torch.testing.assert_close(in_stages(layers, 2, inputs, None), WAN.forward(model, inputs))


def test_weights_of_one_file_in_half_precision_are_read_as_well(folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    model_class(WAN.class_name).from_pretrained(folder).half().save_pretrained(one)
    state = whole_state(built(replace(WAN, weights=str(one))))
    for name, tensor in load_file(one / ONE_FILE).items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], tensor.float())


def save_variant(folder: Path, variant: str, **how: Any) -> None:
    """A model of weights of its own, in half precision, into `folder`."""
    torch.manual_seed({"fp16": 4, "bf16": 5}.get(variant, 6))
    model = model_class(WAN.class_name).from_config(dict(WAN.config)).half()
    model.save_pretrained(folder, variant=variant, **how)


@pytest.mark.parametrize("how", [{}, {"max_shard_size": "40KB"}], ids=["one file", "several files"])
def test_a_variant_is_read_where_the_whole_weights_are_not_there(
    tmp_path: Path, how: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    save_variant(tmp_path, "fp16", **how)
    assert (tmp_path / "diffusion_pytorch_model.fp16.safetensors").is_file() == (not how)
    state = whole_state(built(replace(WAN, weights=str(tmp_path))))
    theirs = model_class(WAN.class_name).from_pretrained(tmp_path, variant="fp16").state_dict()
    for name, tensor in theirs.items():
        assert torch.equal(state[name], tensor.float())
    assert not caplog.records, "there was nothing to choose from"


def test_the_whole_weights_go_before_variants_and_fp16_before_bf16(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for variant in ("non_ema", "bf16", "fp16"):
        save_variant(tmp_path, variant)
    state = whole_state(built(replace(WAN, weights=str(tmp_path))))
    fp16 = load_file(tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in fp16.items())
    assert "holds variants of the weights: fp16 is read, not bf16, non_ema" in caplog.text
    caplog.clear()
    torch.manual_seed(7)
    model_class(WAN.class_name).from_config(dict(WAN.config)).save_pretrained(tmp_path)
    state = whole_state(built(replace(WAN, weights=str(tmp_path))))
    for name, tensor in load_file(tmp_path / ONE_FILE).items():
        assert torch.equal(state[name], tensor)
    assert not caplog.records


def _lacking(state: dict[str, torch.Tensor]) -> None:
    del state["proj_out.bias"]


def _with_more(state: dict[str, torch.Tensor]) -> None:
    state["blocks.9.ffn.weight"] = torch.zeros(1)


def _of_another_width(state: dict[str, torch.Tensor]) -> None:
    state["proj_out.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lacking, "lacks proj_out.bias of WanTransformer3DModel"),
        (_with_more, "holds blocks.9.ffn.weight, which this WanTransformer3DModel lacks"),
        (_of_another_width, r"proj_out.bias has shape \[3\], the model's is \[16\]"),
    ],
)
def test_weights_of_another_model_are_refused(
    folder: Path, tmp_path: Path, change: Any, message: str
) -> None:
    one = tmp_path / "one"
    model_class(WAN.class_name).from_pretrained(folder).save_pretrained(one)
    state = load_file(one / ONE_FILE)
    change(state)
    save_file(state, one / ONE_FILE)
    with pytest.raises(VdsgenError, match=message):
        built(replace(WAN, weights=str(one)))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"_class_name": "MochiTransformer3DModel"}', "is of MochiTransformer3DModel"),
        ("config.json", "{}", "names no _class_name"),
        ("config.json", "[]", "holds no JSON object"),
        ("config.json", "{", "is not JSON"),
        ("diffusion_pytorch_model.safetensors.index.json", "{}", "has no weight_map"),
        (
            "diffusion_pytorch_model.safetensors.index.json",
            '{"weight_map": {"a": "../elsewhere.safetensors"}}',
            "is no file name of this folder",
        ),
        (
            "diffusion_pytorch_model.safetensors.index.json",
            '{"weight_map": {"a": "gone.safetensors"}}',
            "lacks gone.safetensors",
        ),
    ],
)
def test_folders_that_are_not_of_this_model_are_refused(
    folder: Path, name: str, content: str, message: str
) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(VdsgenError, match=message):
        built(replace(WAN, weights=str(folder)))


def test_folders_without_weights_or_with_broken_ones_are_refused(tmp_path: Path) -> None:
    tiny = replace(WAN, weights=str(tmp_path))
    with pytest.raises(VdsgenError, match=r"config\.json cannot be read"):
        built(tiny)
    _write(tmp_path / "config.json", {"_class_name": WAN.class_name})
    (tmp_path / "diffusion_pytorch_model.fp16-00001-of-00002.safetensors").write_bytes(b"")
    looked_for = (
        r"holds neither diffusion_pytorch_model\.safetensors nor "
        r"diffusion_pytorch_model\.safetensors\.index\.json, nor a variant of them such as "
        r"diffusion_pytorch_model\.fp16\.safetensors or "
        r"diffusion_pytorch_model\.safetensors\.index\.fp16\.json"
    )
    with pytest.raises(VdsgenError, match=looked_for):
        built(tiny)
    (tmp_path / ONE_FILE).write_bytes(b"no tensors")
    with pytest.raises(VdsgenError, match="is no safetensors file that can be read"):
        built(tiny)


@pytest.mark.parametrize(
    ("tiny", "message"),
    [
        (replace(WAN, class_name="FluxTransformer2DModel"), "no class that vdsgen can cut"),
        (replace(WAN, config={**WAN.config, "num_blocks": 3}), "does not know num_blocks"),
        (replace(WAN, config={**WAN.config, "num_layers": "many"}), "cannot be built from its configuration"),
    ],
)
def test_configurations_that_a_class_does_not_take_are_refused(tiny: Tiny, message: str) -> None:
    with pytest.raises(VdsgenError, match=message):
        built(tiny)


def test_layers_take_torchs_default_dtype_and_device() -> None:
    specs = diffusers_layer_specs(WAN, 1)
    torch.set_default_dtype(torch.bfloat16)
    try:
        half = specs[1].build()
        with torch.device("meta"):
            empty = specs[1].build()
    finally:
        torch.set_default_dtype(torch.float32)
    full = specs[1].build()
    for ours, theirs, nothing in zip(half.parameters(), full.parameters(), empty.parameters(), strict=True):
        assert nothing.is_meta and ours.dtype == nothing.dtype == torch.bfloat16
        assert torch.equal(ours, theirs.bfloat16())


def test_layers_run_on_tensors_without_memory() -> None:
    tiny = WAN
    with torch.device("meta"):
        layers = built(tiny)
        inputs = tuple(torch.empty_like(x, device="meta") for x in tiny.inputs())
    assert in_stages(layers, 2, inputs, torch.empty(2, 4, 3, 4, 6, device="meta")).is_meta
    inputs = tiny.inputs()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        layers = built(tiny)
        fakes = tuple(mode.from_tensor(x) for x in inputs)
        assert all(isinstance(p, FakeTensor) for layer in layers for p in layer.parameters())
        prediction = in_stages(layers, 2, fakes, torch.empty(2, 4, 3, 4, 6))
    assert isinstance(prediction, FakeTensor) and prediction.shape == inputs[0].shape


def test_rotary_tables_stay_fp32_when_the_engine_casts_a_layer() -> None:
    layers = [layer.bfloat16() for layer in built(WAN)]
    inputs = WAN.inputs()
    prediction = in_stages(layers, 2, inputs, torch.ones(2, 4, 3, 4, 6))
    assert prediction.dtype == torch.float32
    tables = constants_of(layers[1])
    assert len(tables) == 2 and all(table.dtype == torch.float32 for table in tables)
    expected = WAN.forward(unwrapped(WAN, built(WAN)), inputs)
    torch.testing.assert_close(prediction, expected, rtol=0.05, atol=0.05)
