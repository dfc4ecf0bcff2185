"""Tensors without memory are of the dtype that they would have with it."""

from __future__ import annotations

import torch

from tests.model.families.tiny import TINY
from vdsgen.model.families.layer_specs import diffusers_layer_specs
from vdsgen.profile.live_bytes import LiveBytes
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.verify.exchange import Exchange
from vdsgen.verify.fake_rank import without_memory


def test_a_weight_that_its_class_writes_out_as_a_number_stays_in_half_precision() -> None:
    """SVD's mixing factors, `torch.Tensor([0.5])`: moving a stage reads and sets every weight again."""
    tiny = TINY["svd"]
    model = DiffusersModel(
        family="diffusers", name="tiny", class_name=tiny.class_name, config=dict(tiny.config)
    )
    with without_memory(LiveBytes(), Exchange((), ())):
        layers = [spec.build() for spec in diffusers_layer_specs(model, 0, dtype=torch.bfloat16)]
        stage = torch.nn.Sequential(*layers).to("cpu")
        weights = dict(stage.named_parameters())
        assert any(name.endswith("mix_factor") for name in weights)
        assert {weight.detach().dtype for weight in weights.values()} == {torch.bfloat16}
        # As ZeRO flattens them.
        assert torch.cat([weight.data.flatten() for weight in weights.values()]).dtype == torch.bfloat16
