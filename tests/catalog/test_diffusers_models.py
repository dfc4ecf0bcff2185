"""Models of diffusers in experiments: from the catalogue, from a folder, with changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.test_resolve import experiment, problem_of
from vdsgen.catalog.load import pretrained
from vdsgen.catalog.profiles import profile_for
from vdsgen.catalog.resolve import resolve_experiment, resolve_model
from vdsgen.errors import InputError
from vdsgen.spec.data import ClipSize
from vdsgen.spec.diffusers_model import DiffusersModel, DiffusersSource
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.recipes import CLASSES, recipe_for, trained_recipe
from vdsgen.spec.recipes.changes import RecipeChanges
from vdsgen.spec.recipes.recipe import Recipe
from vdsgen.spec.training import Lora, Sampling, Training

WAN = "wan2.1-t2v-1.3b"
WAN_VAE = {
    "codec": "autoencoder", "path": "vae", "channels": 16, "spatial_factor": 8, "temporal_factor": 4,
}  # fmt: skip


def saved(folder: Path, *, weights: bool = True, **changes: Any) -> Path:
    """A folder as diffusers saves a model to."""
    folder.mkdir(parents=True)
    config = {
        "_class_name": "WanTransformer3DModel",
        "_diffusers_version": "0.42.1",
        **pretrained()[WAN].config,
    }
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    if weights:
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    return folder


def source(**values: Any) -> DiffusersModel:
    model = resolve_model(DiffusersSource.model_validate(values))
    assert isinstance(model, DiffusersModel)
    return model


@pytest.mark.parametrize("name", list(pretrained()))
def test_what_the_catalogue_says_of_a_model_follows_from_its_configuration(name: str) -> None:
    entry, model = pretrained()[name], resolve_model(name)
    assert isinstance(model, DiffusersModel)
    assert (model.spatial_patch, model.temporal_patch) == (entry.spatial_patch, entry.temporal_patch)
    assert (model.only_full_text, model.weights) == (entry.only_full_text, None)


def test_a_catalogue_name_gets_its_configuration_written_out_and_reads_back() -> None:
    resolved = resolve_experiment(experiment(WAN, frames=9, pipeline="wan"))
    assert isinstance(resolved.model, DiffusersModel)
    assert resolved.model.config == pretrained()[WAN].config
    assert resolve_experiment(resolved) == resolved
    assert Experiment.model_validate_json(resolved.model_dump_json()) == resolved


def test_samples_are_made_as_the_recipe_makes_them_unless_the_experiment_says() -> None:
    given = experiment(WAN, frames=9, pipeline="wan")
    assert given.training.sampling.steps is None
    own = pretrained_recipe(WAN).sampling
    resolved = resolve_experiment(given).training.sampling
    assert (resolved.steps, resolved.guidance_scale) == (own.steps, own.guidance_scale) == (50, 5.0)
    training = given.training.model_copy(update={"sampling": Sampling(steps=4, guidance_scale=1.0, clips=1)})
    said = resolve_experiment(given.model_copy(update={"training": training})).training.sampling
    assert said == Sampling(steps=4, guidance_scale=1.0, clips=1)


def pretrained_recipe(name: str) -> Recipe:
    return recipe_for(pretrained()[name].class_name, pretrained()[name].config)


def test_a_model_that_is_told_frames_a_second_is_told_those_that_clips_are_sampled_at() -> None:
    svd = next(name for name in pretrained() if name.startswith("svd"))
    model = resolve_model_of(svd)

    def told(frame_rate: float | None, changes: RecipeChanges | None = None) -> float:
        given = experiment(svd, frame_rate=frame_rate)
        diffusion = given.training.diffusion.model_copy(update={"recipe": changes})
        training = given.training.model_copy(update={"diffusion": diffusion})
        recipe = trained_recipe(model, given.model_copy(update={"training": training}))
        assert recipe.micro_conditions is not None
        assert recipe.micro_conditions.motion_bucket_id == 127
        return recipe.micro_conditions.frame_rate

    assert told(12.0) == 12.0
    assert told(None) == 7.0
    assert told(12.0, RecipeChanges(frame_rate=25.0)) == 25.0, "what the experiment says of the recipe"
    assert trained_recipe(resolve_model_of(WAN), experiment(WAN, frame_rate=12.0)) == pretrained_recipe(WAN)


def resolve_model_of(name: str) -> DiffusersModel:
    model = resolve_model(name)
    assert isinstance(model, DiffusersModel)
    return model


def test_changes_make_another_model_of_another_name() -> None:
    shallow = source(diffusers=WAN, changes={"num_layers": 2})
    assert (shallow.name, shallow.config["num_layers"]) == (f"{WAN}-changed", 2)
    assert source(diffusers=WAN, changes={"num_layers": 30}).name == WAN
    assert source(diffusers=WAN, changes={"num_layers": 2}, name="trial").name == "trial"


def test_a_folder_brings_its_weights_and_a_file_or_an_empty_folder_none(tmp_path: Path) -> None:
    folder = saved(tmp_path / "my model" / "transformer")
    model = resolve_model(str(folder))
    assert isinstance(model, DiffusersModel)
    assert (model.name, model.weights, model.class_name) == ("my-model", str(folder), "WanTransformer3DModel")
    assert model.config == pretrained()[WAN].config
    assert source(diffusers=str(tmp_path / "my model")).weights == str(folder)  # the pipeline's folder
    assert source(diffusers=str(folder / "config.json")).weights is None
    assert source(diffusers=str(saved(tmp_path / "bare", weights=False))).weights is None
    assert source(diffusers=WAN, weights="elsewhere").weights == "elsewhere"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"_class_name": "AutoencoderKL"}', "cannot cut into pipeline layers"),
        ('{"_class_name": "WanTransformer3DModel", "patch_size": 2}', "no configuration of WanTransformer"),
        ("[" * 100_000, "is no JSON"),
        (" " * 1_000_001, "longer than a configuration"),
    ],
)
def test_what_is_no_model_is_refused_with_the_file(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    key, message = problem_of(str(tmp_path))
    assert key == "model"
    assert words in message
    assert str(tmp_path) in message


def test_a_path_that_is_not_there_says_what_was_looked_for(tmp_path: Path) -> None:
    assert "is no folder with a config.json" in problem_of(str(tmp_path / "none"))[1]


def test_geometry_counts_patches_in_time_and_space() -> None:
    data = experiment(WAN, frames=81, height=480, width=832, latents=WAN_VAE).data
    geometry = geometry_of(data, source(diffusers=WAN))
    assert (geometry.frames, geometry.patches, geometry.text_tokens) == (21, 30 * 52, 512)
    assert (geometry.latent_height, geometry.latent_width) == (60, 104)
    twice = source(diffusers="cogvideox1.5-5b")
    assert geometry_of(data, twice).frames == 11  # the first latent frame comes twice
    assert geometry_of(data, twice, ClipSize(frames=85, height=480, width=832)).frames == 11


def test_a_pipelines_folder_says_what_latents_and_text_are() -> None:
    data = experiment(WAN, frames=81, height=480, width=832, pipeline="wan").data
    geometry = geometry_of(data, source(diffusers=WAN))
    assert (geometry.frames, geometry.patches, geometry.text_tokens) == (21, 30 * 52, 512)
    resolve_experiment(experiment(WAN, frames=81, height=480, width=832, pipeline="wan"))


@pytest.mark.parametrize(
    ("model", "data", "key", "words"),
    [
        (WAN, {"frames": 80}, "data.frames", "1 + a multiple of the autoencoder's temporal factor (4)"),
        ("ltx-video-2b", {"frames": 9, "height": 72}, "data.height", "spatial factor (32)"),
        (WAN, {"text_encoder": {"path": "t5"}, "frames": 9}, "data.text_encoder", "pipeline has its own"),
        ("vdt-demo", {}, "data.pipeline", "is of the bundled family"),
    ],
)
def test_what_does_not_fit_a_pipeline(model: str, data: dict[str, Any], key: str, words: str) -> None:
    found, message = problem_of(model, **{"pipeline": "folder", **data})
    assert (found, words in message) == (key, True), message


def test_adapters_have_a_profile_of_their_own_and_leave_the_rest_frozen() -> None:
    model = source(diffusers=WAN)
    training = Training(global_batch_size=1, steps=1, method="lora", lora=Lora(rank=32))
    full, adapted = profile_for(model), profile_for(model, training)
    assert full is not None
    assert adapted is not None
    assert full.trainable_parameters == full.parameters == pretrained()[WAN].published_parameters
    # 30 blocks x 2 attentions x 4 projections of 1536 x 1536, each with two adapters
    assert adapted.trainable_parameters == 30 * 2 * 4 * 2 * 32 * 1536
    assert adapted.parameters == full.parameters + adapted.trainable_parameters
    elsewhere = training.model_copy(update={"lora": Lora(targets=("ffn.net.2",))})
    assert profile_for(model, elsewhere) is None  # to be traced


def test_adapters_on_the_bundled_family_are_refused() -> None:
    with pytest.raises(InputError, match="adapters"):
        resolve_experiment(
            experiment("vdt-demo").model_copy(
                update={"training": Training(global_batch_size=1, steps=1, method="lora")}
            )
        )


def test_every_class_that_is_known_is_one_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    assert all(hasattr(diffusers, name) for name in CLASSES)
