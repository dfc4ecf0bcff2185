from __future__ import annotations

from typing import Any

import pytest

from vdsgen.catalog.load import models
from vdsgen.catalog.resolve import resolve_experiment, resolve_model
from vdsgen.errors import InputError
from vdsgen.spec.architecture import PresetModel, Vdt
from vdsgen.spec.experiment import Experiment

DATA = {"videos": "clips", "frames": 8, "height": 64, "width": 64}
TEXT = {"text_encoder": {"path": "t5"}}
VAE = {"latents": {"codec": "autoencoder", "path": "vae", "channels": 4, "spatial_factor": 8}}
SIZES = {
    "in_channels": 192, "patch_size": 1, "hidden_size": 8, "depth": 1, "heads": 2, "mlp_hidden_size": 8,
    "condition": "none",
}  # fmt: skip


def experiment(model: Any, **data: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "e",
            "model": model,
            "data": {**DATA, **data},
            "training": {"global_batch_size": 8, "steps": 1},
        }
    )


def problem_of(model: Any, **data: Any) -> tuple[str | None, str]:
    with pytest.raises(InputError) as raised:
        resolve_experiment(experiment(model, **data))
    (problem,) = raised.value.problems
    return problem.key, str(problem)


def test_names_presets_and_sizes_become_sizes() -> None:
    assert resolve_model("vdt-1.5b") == models()["vdt-1.5b"].sizes
    own = Vdt.model_validate(SIZES)
    assert resolve_model(own) is own
    changed = resolve_model(PresetModel(preset="vdt-1.5b", depth=24))
    assert isinstance(changed, Vdt)
    assert (changed.depth, changed.hidden_size, changed.name) == (24, 1280, "vdt-1.5b-changed")
    assert resolve_model(PresetModel(preset="vdt-1.5b", depth=48)) == models()["vdt-1.5b"].sizes


def test_resolving_again_changes_nothing() -> None:
    once = resolve_experiment(experiment("vdt-demo"))
    assert isinstance(once.model, Vdt)
    assert resolve_experiment(once) == once
    assert Experiment.model_validate_json(once.model_dump_json()) == once
    sampling = once.training.sampling
    assert (sampling.steps, sampling.guidance_scale) == (30, 1.0)


@pytest.mark.parametrize("model", ["vdt-1.2b", "vdt-1.5b", "vdt-2.1b"])
def test_the_articles_models_fit_an_autoencoder_and_text(model: str) -> None:
    resolve_experiment(experiment(model, **VAE, **TEXT))


def test_unknown_models_list_those_that_are_there() -> None:
    key, message = problem_of("vdt-15b")
    assert key == "model"
    assert "did you mean vdt-1.5b" in message
    key, message = problem_of({"preset": "nothing-like-it"})
    assert key == "model.preset"
    assert all(name in message for name in models())


@pytest.mark.parametrize(
    ("model", "data", "key", "words"),
    [
        ("vdt-1.5b", TEXT, "model", "takes 4 channels, space_to_depth latents have 192"),
        ("vdt-1.5b", VAE, "data.text_encoder", "is conditioned on text"),
        ("vdt-demo", TEXT, "data.text_encoder", "not conditioned on text"),
        ("wan2.1-t2v-1.3b", VAE, "data.latents", "takes 16 channels, autoencoder latents have 4"),
        (
            {"diffusers": "wan2.1-t2v-1.3b", "changes": {"depth": 2}},
            {},
            "model.changes",
            "the configuration has no 'depth'",
        ),
        ({"preset": "wan2.1-t2v-1.3b"}, {}, "model.preset", "is a diffusers model"),
        (
            {**SIZES, "patch_size": 3},
            {},
            "data.height",
            "patch_size (3) must divide the latent frame (8 x 8)",
        ),
        ({**SIZES, "position": "learned", "max_frames": 7}, {}, "model.max_frames", "the clips have 8"),
        ({**SIZES, "position": "learned", "max_patches": 63}, {}, "model.max_patches", "the clips have 64"),
        (
            {**SIZES, "patch_size": 4},
            {"buckets": ({"frames": 4, "height": 32, "width": 64}, {"frames": 4, "height": 64, "width": 48})},
            "data.buckets[1].height",
            "patch_size (4) must divide the latent frame (8 x 6)",
        ),
        (
            {**SIZES, "position": "learned", "max_frames": 8},
            {"buckets": ({"frames": 9, "height": 64, "width": 64},)},
            "data.buckets[0].frames",
            "learned positions for 8, the clips have 9",
        ),
        (
            {**SIZES, "position": "learned", "max_patches": 64},
            {"buckets": ({"frames": 8, "height": 72, "width": 64},)},
            "data.buckets[0].height",
            "learned positions for 64, the clips have 72",
        ),
    ],
)
def test_models_that_do_not_fit_the_clips(model: Any, data: dict[str, Any], key: str, words: str) -> None:
    found, message = problem_of(model, **data)
    assert found == key
    assert words in message
    assert "->" in message


def test_the_remedy_for_channels_works() -> None:
    _, message = problem_of("vdt-1.5b", **TEXT)
    assert "model: {preset: vdt-1.5b, in_channels: 192}" in message
    resolve_experiment(experiment({"preset": "vdt-1.5b", "in_channels": 192}, **TEXT))


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(InputError) as raised:
        resolve_experiment(experiment("vdt-1.5b", height=72))
    assert [problem.key for problem in raised.value.problems] == ["model", "data.text_encoder", "data.height"]


WAN = {"codec": "autoencoder", "path": "vae", "channels": 16, "spatial_factor": 8, "temporal_factor": 4}


def recipe_problem(model: Any, diffusion: dict[str, Any], **data: Any) -> tuple[str | None, str]:
    given = experiment(model, **data).model_dump(mode="json", exclude_unset=True)
    given["training"]["diffusion"] = diffusion
    with pytest.raises(InputError) as raised:
        resolve_experiment(Experiment.model_validate(given))
    (problem,) = raised.value.problems
    return problem.key, str(problem)


def test_an_experiment_changes_the_recipe_of_a_diffusers_model() -> None:
    given = experiment("wan2.1-t2v-1.3b", latents=WAN, frames=9).model_dump(mode="json", exclude_unset=True)
    given["training"]["diffusion"] = {"recipe": {"shift": 5.0, "timestep_range": [0.875, 1.0]}}
    once = resolve_experiment(Experiment.model_validate(given, strict=False))
    assert once.training.diffusion.recipe is not None
    assert once.training.diffusion.recipe.shift == 5.0
    assert Experiment.model_validate_json(once.model_dump_json()) == once
    assert resolve_experiment(once) == once


def test_a_recipe_that_means_nothing_to_the_model_is_refused() -> None:
    key, text = recipe_problem("vdt-demo", {"recipe": {"shift": 5.0}})
    assert key == "training.diffusion.recipe" and "bundled family" in text
    key, text = recipe_problem("wan2.1-t2v-1.3b", {"recipe": {"guidance": 6.0}}, latents=WAN, frames=9)
    assert key == "training.diffusion.recipe.guidance" and "told no guidance" in text
    key, text = recipe_problem("wan2.1-t2v-1.3b", {"shift": 5.0}, latents=WAN, frames=9)
    assert key == "training.diffusion.shift" and "training.diffusion.recipe" in text


def test_experiments_without_a_recipe_are_written_without_one() -> None:
    assert "recipe" not in experiment("vdt-demo").model_dump_json()
