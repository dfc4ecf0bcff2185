"""docs/recipes.md, from the recipes: `python -m vdsgen.spec.recipes.markdown > docs/recipes.md`."""

from __future__ import annotations

import sys

from vdsgen.spec.recipes import ALL_RECIPES
from vdsgen.spec.recipes.recipe import (
    IMAGE_NOISE_VARIANTS,
    Edm,
    ImageConditioning,
    Objective,
    Recipe,
    RectifiedFlow,
    TextEncoding,
    TimestepSampling,
)

DIFFUSERS_READ = "0.42.1"
"""The release that `diffusers/...:LINE` stands for."""

HEAD = """\
# Training recipes of diffusers models

How each family is trained and sampled, and where each figure stands: lines of diffusers {release}, papers,
and the trainers that others fine-tune these models with. Made from `vdsgen/spec/recipes` by
`python -m vdsgen.spec.recipes.markdown > docs/recipes.md`; tests keep this page fresh, look for the text at
each line of diffusers, and hold targets and whole sampling trajectories to diffusers' own schedulers.

`training.diffusion.recipe` of an experiment changes what it names; all else is the family's. The share of
noise t is 0 for the clip and 1 for noise. Latents are encoded once, as the mode of the autoencoder's
posterior, and cached normalised; where a family noises the conditioning image in pixels, {variants} noised
copies are encoded for each clip, and a sample takes one of them.

A family is one file of figures in `vdsgen/spec/recipes`: what its objective, its timesteps, its encoders and
its conditions are, in words that `vdsgen/model/recipes` computes. A model of a known kind needs no other
code.

"""


def recipes_markdown() -> str:
    """The page as one string."""
    parts = [HEAD.format(release=DIFFUSERS_READ, variants=IMAGE_NOISE_VARIANTS), _overview()]
    parts += [_section(recipe) for recipe in ALL_RECIPES]
    return "".join(parts)


def _overview() -> str:
    rows = "".join(
        f"| [`{recipe.name}`](#{recipe.name}) | `{recipe.class_name}` | {_objective(recipe.objective)} | "
        f"{_timesteps(recipe.timesteps)} | {recipe.shift} |\n"
        for recipe in ALL_RECIPES
    )
    return f"| recipe | class | objective | t | shift |\n|---|---|---|---|---|\n{rows}"


def _section(recipe: Recipe) -> str:
    figures = "".join(f"| {name} | {value} |\n" for name, value in _figures(recipe))
    sources = "".join(f"| {source.figure} | `{source.place}` |\n" for source in recipe.sources)
    notes = "".join(f"- {note}\n" for note in recipe.notes)
    return (
        f"\n## {recipe.name}\n\n{recipe.summary}.\n\n| | |\n|---|---|\n{figures}\n"
        f"| figure | source |\n|---|---|\n{sources}" + (f"\n{notes}" if notes else "")
    )


def _figures(recipe: Recipe) -> list[tuple[str, str]]:
    coder, sampling = recipe.autoencoder, recipe.sampling
    rows = [
        ("objective", _objective(recipe.objective)),
        ("t in training", f"{_timesteps(recipe.timesteps)}, shift {recipe.shift}"),
        ("first layer's inputs", ", ".join(f"`{name}`" for name in recipe.inputs)),
        ("cached tensors", ", ".join(f"`{name}`" for name in recipe.cached)),
        (
            "autoencoder",
            f"`{coder.class_name}`: {coder.channels} channels, {coder.spatial_factor} x in space, "
            f"{coder.temporal_factor} x in time; latents = {coder.normalisation}",
        ),
        *(("text", _text(encoding)) for encoding in recipe.text),
    ]
    if recipe.text:
        rows.append(("no caption", "zeros" if recipe.empty_text == "zeros" else "the empty caption, encoded"))
    if recipe.image:
        rows.append(("image", _image(recipe.image, recipe.image_channels)))
    if recipe.micro_conditions:
        told = recipe.micro_conditions
        rows.append(
            (
                "told besides",
                f"frame rate (data.frame_rate, or {told.frame_rate:g}) less 1, motion bucket "
                f"{told.motion_bucket_id}, the image's noise",
            )
        )
    if recipe.guidance is not None:
        rows.append(("embedded guidance", f"1000 x {recipe.guidance:g} in training"))
    if recipe.first_frame_share is not None:
        rows.append(("first frame given", f"{recipe.first_frame_share:g}"))
    rows.append(("conditions dropped", f"{recipe.condition_dropout:g}"))
    first = sampling.first_frame_guidance
    scale = (
        f"{sampling.guidance_scale:g}"
        if first is None
        else f"{first:g} to {sampling.guidance_scale:g} over frames"
    )
    embedded = "" if sampling.embedded_guidance is None else f", embedded {sampling.embedded_guidance:g}"
    rows.append(("sampling", f"{sampling.steps} steps, guidance {scale}{embedded}, shift {sampling.shift}"))
    return rows


def _objective(objective: Objective) -> str:
    if isinstance(objective, RectifiedFlow):
        told = (
            "1000 (1 - t), predicts clean - noise"
            if objective.reversed_time
            else "1000 t, predicts noise - clean"
        )
        return f"rectified flow, timestep {told}"
    if isinstance(objective, Edm):
        return "EDM, timestep log(sigma) / 4, predicts v"
    shift = f", SNR / {objective.snr_shift:g}" if objective.snr_shift != 1 else ""
    terminal = ", zero terminal SNR" if objective.zero_terminal_snr else ""
    return (
        f"{objective.prediction} on {objective.betas.replace('_', '-')} betas {objective.beta_start:g} to "
        f"{objective.beta_end:g}{shift}{terminal}"
    )


def _timesteps(timesteps: TimestepSampling) -> str:
    if timesteps.kind == "uniform":
        return "uniform"
    return f"log(t / (1 - t)) ~ N({timesteps.mean:g}, {timesteps.std:g}^2)"


def _text(encoding: TextEncoding) -> str:
    layer = "" if encoding.layer is None else f", hidden state {encoding.layer}"
    mask = "" if encoding.masked else ", without mask"
    template = f", in a template of {encoding.crop} tokens that are cut off" if encoding.crop else ""
    return (
        f"`{encoding.gives}`: `{encoding.encoder}` in `{encoding.folder}`, {encoding.max_tokens} tokens{mask}"
        f"{layer}{template}, padding {encoding.padding}"
    )


def _image(image: ImageConditioning, channels: int) -> str:
    noise = "" if image.noise is None else f", noised by exp(N({image.noise[0]:g}, {image.noise[1]:g}^2))"
    embedding = "" if image.embedding is None else f", CLIP's {image.embedding.replace('_', ' ')}"
    dropped = f", dropped in {image.dropout:g}" if image.dropout else ""
    return f"{channels} channels, {image.channels.replace('_', ' ')}{noise}{embedding}{dropped}"


if __name__ == "__main__":
    sys.stdout.write(recipes_markdown())
