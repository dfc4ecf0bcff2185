"""Captions become embeddings once, through an encoder from a local folder and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.encoders import save_text_encoder
from vdsgen.errors import VdsgenError
from vdsgen.model.data import text
from vdsgen.model.data.text import embed_captions
from vdsgen.spec.data import TextEncoder

pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["t5", "clip", "bert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_encoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_encoder(tmp_path_factory.mktemp("t5"), "t5")


def test_embeddings_are_padded_with_zeros_and_cut_at_max_tokens(folder: Path) -> None:
    captions = ["a red car", "a man walks a red car a man walks a red car", "a red car"]
    table = embed_captions(TextEncoder(path=str(folder), max_tokens=6), captions)
    short, long, empty = (table.padded(caption) for caption in (captions[0], captions[1], ""))
    assert short.shape == long.shape == empty.shape == (6, 16)
    assert short.dtype == torch.float32 and table.width == 16
    assert short[:3].abs().sum(1).min() > 0 and not short[3:].any()
    assert long.abs().sum(1).min() > 0
    assert not empty[1:].any()


def test_an_embedding_does_not_depend_on_the_captions_beside_it(folder: Path) -> None:
    encoder = TextEncoder(path=str(folder), max_tokens=6)
    alone = embed_captions(encoder, ["a rabbit"])
    crowd = embed_captions(encoder, ["a rabbit", *(f"a {'red ' * n}car" for n in range(9))])
    torch.testing.assert_close(alone.padded("a rabbit"), crowd.padded("a rabbit"))


def test_each_distinct_caption_is_embedded_once(t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    real = text._embed

    def counting(tokenizer: Any, model: Any, captions: list[str], *rest: Any) -> Any:
        embedded.extend(captions)
        return real(tokenizer, model, captions, *rest)

    monkeypatch.setattr(text, "_embed", counting)
    embed_captions(TextEncoder(path=str(t5), max_tokens=4), ["car", "man", "car", "", "man"])
    assert embedded == ["", "car", "man"]


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VdsgenError, match=r"has no config.json"):
        embed_captions(TextEncoder(path=str(tmp_path)), ["a"])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(VdsgenError, match="cannot be loaded"):
        embed_captions(TextEncoder(path=str(tmp_path)), ["a"])


def test_pickled_weights_are_refused(t5: Path, tmp_path: Path) -> None:
    for file in t5.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(VdsgenError, match="cannot be loaded"):
        embed_captions(TextEncoder(path=str(tmp_path)), ["a"])


def test_code_in_the_folder_is_not_run(t5: Path, tmp_path: Path) -> None:
    for file in t5.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(VdsgenError, match="cannot be loaded"):
        embed_captions(TextEncoder(path=str(tmp_path)), ["a"])
    assert not (tmp_path / "ran").exists()


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    folder = save_text_encoder(tmp_path, "clip")
    with pytest.raises(VdsgenError, match=r"max_tokens is 128, the encoder .* has positions for 12"):
        embed_captions(TextEncoder(path=str(folder)), ["a"])
