from __future__ import annotations

from pathlib import Path

import pytest

from vdsgen.catalog.load import models
from vdsgen.catalog.profiles import profile_for, store_profile
from vdsgen.spec.architecture import Vdt, architecture_sha256
from vdsgen.spec.profile import ModelProfile


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def other_sizes(model: Vdt) -> Vdt:
    return model.model_copy(update={"mlp_hidden_size": model.mlp_hidden_size + 8})


def traced(model: Vdt) -> ModelProfile:
    known = profile_for(models()["vdt-demo"].sizes)
    assert known is not None
    return known.model_copy(update={"architecture_sha256": architecture_sha256(model), "model": model.name})


@pytest.mark.parametrize("name", sorted(models()))
def test_catalogue_models_come_with_their_profile_whatever_they_are_called(name: str) -> None:
    sizes = models()[name].sizes
    profile = profile_for(sizes.model_copy(update={"name": "mine"}))
    assert profile is not None
    assert profile.architecture_sha256 == architecture_sha256(sizes)
    assert len(profile.layers) == sizes.depth + 2


def test_other_sizes_have_none_until_one_is_stored(cache: Path) -> None:
    model = other_sizes(models()["vdt-demo"].sizes)
    assert profile_for(model) is None
    profile = traced(model)
    path = store_profile(profile)
    assert path.is_relative_to(cache / "vdsgen" / "profiles")
    assert profile_for(model) == profile


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"schema_version": 1'])
def test_a_damaged_cache_is_no_profile(content: bytes) -> None:
    model = other_sizes(models()["vdt-demo"].sizes)
    path = store_profile(traced(model))
    path.write_bytes(content)
    assert profile_for(model) is None


def test_a_relative_cache_directory_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = store_profile(traced(other_sizes(models()["vdt-demo"].sizes)))
    assert path.is_relative_to(tmp_path / "home" / ".cache" / "vdsgen")
