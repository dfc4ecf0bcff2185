"""Committed profiles of diffusers' models: parameters as published, costs as the classes have them now."""

from __future__ import annotations

import pytest

from tests.profile.exact import differences
from vdsgen.catalog.load import pretrained
from vdsgen.catalog.profiles import PRETRAINED_FOLDER, catalog_profile
from vdsgen.errors import InputError
from vdsgen.profile.families.build import ADAPTED, FULL, entry_sha256, trace_at
from vdsgen.profile.families.family import GRIDS
from vdsgen.profile.families.registry import FAMILIES, family_of
from vdsgen.profile.points import Point
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.pretrained import PretrainedProfile
from vdsgen.spec.profile import OTHER_ATTENTION, ModelProfile

NAMES = sorted(pretrained())


def unseen(name: str, rank: int = 0) -> Point:
    """A point that nothing was fitted to: no list of sizes in points.py has these."""
    entry = pretrained()[name]
    patch = entry.spatial_patch
    # Of a U-Net, whose levels have ever fewer pixels: whole tiles, as profiles of one are traced.
    rows, columns = (9, 8) if family_of(entry.class_name).grids == GRIDS else (8, 80)
    text = entry.text_tokens if entry.only_full_text else 23
    batches = family_of(entry.class_name).batches
    batch = batches[0] if len(batches) == 1 else 4
    return Point(batch, Geometry(6, rows * columns, text, rows * patch, columns * patch), rank)


def stored(name: str) -> PretrainedProfile:
    return PretrainedProfile.model_validate_json((PRETRAINED_FOLDER / f"{name}.json").read_bytes())


def test_every_model_has_a_profile_and_every_family_a_model() -> None:
    assert {path.stem for path in PRETRAINED_FOLDER.glob("*.json")} == set(NAMES)
    assert {entry.class_name for entry in pretrained().values()} == set(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name: str) -> None:
    profile, entry = catalog_profile(name), pretrained()[name]
    assert entry.published_parameters in (profile.parameters, None)
    assert profile.architecture_sha256 == entry_sha256(entry)
    size_bytes = (PRETRAINED_FOLDER / f"{name}.json").stat().st_size
    assert size_bytes < 25_000 * len(profile.layer_types)


def test_parameters_that_are_published_rounded_follow_from_others() -> None:
    """1.69 B and 13 B by their documentation; the others by hand, from a model whose count is known."""
    counts = {name: catalog_profile(name).parameters for name in NAMES}
    assert round(counts["cogvideox-2b"] / 1e9, 2) == 1.69
    assert round(counts["hunyuanvideo-13b"] / 1e9) == 13
    patches = 16 * 4 * 3072 + (16 * 4 * 3072 + 16 * 4)  # two frames in a patch, on the way in and out
    assert counts["cogvideox1.5-5b"] == counts["cogvideox-5b"] + patches
    width = 5120
    keys_and_values = 40 * (2 * (width * width + width) + width)
    image = 2 * 1280 + (1280 * 1280 + 1280) + (1280 * width + width) + 2 * width
    channels = (36 - 16) * 2 * 2 * width
    assert counts["wan2.1-i2v-14b"] == counts["wan2.1-t2v-14b"] + keys_and_values + image + channels


def test_wan_2_2_counts_follow_from_the_same_widths() -> None:
    counts = {name: catalog_profile(name).parameters for name in NAMES}
    assert counts["wan2.2-t2v-a14b"] == counts["wan2.1-t2v-14b"]
    assert counts["wan2.2-i2v-a14b"] == counts["wan2.1-t2v-14b"] + (36 - 16) * 2 * 2 * 5120
    assert round(counts["wan2.2-ti2v-5b"] / 1e9) == 5


def test_the_14_billion_of_wan_by_hand() -> None:
    """Per block 8 h^2 + 2 h f + 21 h + f; then patches, times, text and head."""
    for name, h, f, blocks in (("wan2.1-t2v-1.3b", 1536, 8960, 30), ("wan2.1-t2v-14b", 5120, 13824, 40)):
        block = 8 * h * h + 2 * h * f + 21 * h + f
        time = (256 * h + h) + (h * h + h) + (h * 6 * h + 6 * h)
        text = (4096 * h + h) + (h * h + h)
        patches, head = 16 * 4 * h + h, (h * 64 + 64) + 2 * h
        assert catalog_profile(name).parameters == blocks * block + time + text + patches + head


def test_finetrainers_counted_as_many_trainable_parameters() -> None:
    """132,120,576 with adapters of rank 128 on CogVideoX 5 B's attention projections (finetrainers 0.0.1)."""
    profile = catalog_profile("cogvideox-5b", variant="lora", rank=128)
    assert profile.trainable_parameters == 132_120_576
    assert profile.parameters == 5_570_283_072 + 132_120_576
    shapes = profile.layer_types["block"].parameter_shapes
    assert shapes[:2] == ((128, 3072), (3072, 128)), "what trains comes first"


def check(name: str, ways: list[tuple[str, str]]) -> None:
    """Every layer type, exactly, in these ways ("full" or "lora", and width/kernel)."""
    entry = pretrained()[name]
    family = family_of(entry.class_name)
    profiles: dict[str, ModelProfile] = {
        "full": catalog_profile(name),
        "lora": catalog_profile(name, variant="lora", rank=7),
    }
    for variant, way in ways:
        width, _, kernel = way.partition("/")
        training = {"full": FULL, "lora": ADAPTED}[variant][width]  # type: ignore[index]
        point = unseen(name, rank=7 if variant == "lora" else 0)
        traces = trace_at(family, entry, training, point, kernel or "flash")  # type: ignore[arg-type]
        for kind, (trace, checkpointed) in traces.items():
            costs = profiles[variant].layer_types[kind].costs(width, kernel or "flash")  # type: ignore[arg-type]
            assert differences(costs, trace, checkpointed, point) == {}, (variant, way, kind)


def test_a_committed_profile_is_exact_at_a_size_that_it_was_not_fitted_to() -> None:
    check("cogvideox-5b", [("full", "half"), ("lora", "mixed")])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_committed_profiles_are_what_diffusers_classes_cost_now(name: str) -> None:
    """To renew them: vdsgen profile --all --out vdsgen/catalog/data/profiles"""
    full = [*FULL, *(f"{width}/{kernel}" for width, kernel in OTHER_ATTENTION)]
    check(name, [*(("full", way) for way in full), *(("lora", width) for width in ADAPTED)])


def test_a_model_is_prepared_for_one_way_to_train_it() -> None:
    plain = catalog_profile("wan2.1-t2v-1.3b").layer_types["block"]
    mixed = catalog_profile("wan2.1-t2v-1.3b", mixed=True).layer_types["block"]
    scores = catalog_profile("wan2.1-t2v-1.3b", attention="math").layer_types["block"]
    assert mixed.half == plain.mixed
    assert scores.half == plain.other_attention["half/math"]
    assert not scores.other_attention
    assert "BTTSS" in scores.half.saved_bytes.terms, "scores are kept"
    assert "BTTSS" not in plain.half.saved_bytes.terms
    with pytest.raises(ValueError, match="autocast"):
        catalog_profile("wan2.1-t2v-1.3b", mixed=True, attention="math")
    with pytest.raises(ValueError, match="math"):
        catalog_profile("wan2.1-t2v-1.3b", variant="lora", attention="math")
    with pytest.raises(InputError, match="did you mean"):
        catalog_profile("wan2.1-t2v")


def test_adapters_rank_scales_what_they_add() -> None:
    ranks = (1, 16, 256)
    adapted = [catalog_profile("wan2.1-t2v-1.3b", variant="lora", rank=rank) for rank in ranks]
    counts = [profile.trainable_parameters for profile in adapted]
    assert [count // counts[0] for count in counts] == list(ranks)
    assert all("R" not in key for key in adapted[1].layer_types["block"].half.saved_bytes.terms)


def test_clips_become_the_tokens_that_are_published() -> None:
    """49 x 480 x 720: 17,550 tokens (CogVideoX's paper); 81 x 480 x 832: 32,760 (Wan's)."""
    for name, clip, tokens in (
        ("cogvideox-5b", (49, 480, 720), 17550),
        ("wan2.1-t2v-14b", (81, 480, 832), 32760),
        ("ltx-video-2b", (49, 512, 768), 7 * 16 * 24),
        ("cogvideox1.5-5b", (81, 768, 1360), 11 * 48 * 85),
    ):
        where = pretrained()[name].geometry(*clip)
        assert where.frames * where.patches == tokens
    with pytest.raises(ValueError, match="512"):
        pretrained()["wan2.1-i2v-14b"].geometry(81, 480, 832, text_tokens=256)
