"""Written videos play, show what was given, and appear whole or not at all."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import numbered, numbers_of
from vdsgen.errors import VdsgenError
from vdsgen.model.data import encode
from vdsgen.model.data.decode import decode_clip
from vdsgen.model.data.encode import write_video
from vdsgen.model.data.video import probe


@pytest.mark.parametrize("name", ["x.mp4", "x.gif"])
@pytest.mark.parametrize("count", [1, 12])
def test_what_is_written_can_be_read(tmp_path: Path, name: str, count: int) -> None:
    path = tmp_path / "new" / "folder" / name
    write_video(path, numbered(count), 10)
    info = probe(path)
    assert (info.frames, info.width, info.height) == (count, 64, 48)
    assert info.frame_rate == 10 or count == 1
    assert numbers_of(decode_clip(path, 0, count)) == list(range(count))
    assert [file.name for file in path.parent.iterdir()] == [name], "nothing unfinished is left"


@pytest.mark.parametrize("has_h264", [True, False])
def test_colours_survive_either_encoder(
    tmp_path: Path, has_h264: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_h264:
        real = av.codec.Codec

        def without(name: str, mode: str) -> object:
            return real("no such encoder" if name == "libx264" else name, mode)

        monkeypatch.setattr(av.codec, "Codec", without)
    colours = np.array([(200, 30, 60), (20, 180, 90), (240, 240, 250), (10, 20, 120)], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (4, 64, 64, 3))
    write_video(tmp_path / "x.mp4", frames, 8)
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == ("h264" if has_h264 else "mpeg4")
        assert stream.codec_context.pix_fmt == "yuv420p", "what every player can show"
    assert np.abs(decode_clip(tmp_path / "x.mp4", 0, 4).astype(int) - frames).max() <= 6


def test_odd_sizes_are_padded_at_the_edge_in_mp4_and_kept_in_gif(tmp_path: Path) -> None:
    frames = np.full((3, 35, 51, 3), 200, np.uint8)
    write_video(tmp_path / "x.mp4", frames, 8)
    decoded = decode_clip(tmp_path / "x.mp4", 0, 3)
    assert decoded.shape == (3, 36, 52, 3) and np.abs(decoded.astype(int) - 200).max() <= 3
    write_video(tmp_path / "x.gif", frames, 8)
    assert decode_clip(tmp_path / "x.gif", 0, 3).shape == (3, 35, 51, 3)


def test_gifs_have_a_palette_of_their_own(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(128)[None, None, :, None], (2, 32, 128, 3)).astype(np.uint8)
    write_video(tmp_path / "x.gif", ramp, 10)
    error = np.abs(decode_clip(tmp_path / "x.gif", 0, 2).astype(int) - ramp)
    assert error.mean() < 2, "the standard palette's steps are 36 levels apart"


def test_fractional_rates_are_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", numbered(10), 23.976)
    assert abs(probe(tmp_path / "x.mp4").frame_rate - Fraction(24000, 1001)) < Fraction(1, 1000)


def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.mp4"
    write_video(path, numbered(4), 8)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode, "_encode", full)
    with pytest.raises(VdsgenError, match=r"x.mp4: cannot be written: .*No space left"):
        write_video(path, numbered(8), 8)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_other_formats_are_refused_with_what_works(tmp_path: Path) -> None:
    with pytest.raises(VdsgenError, match=r"cannot write .avi") as caught:
        write_video(tmp_path / "x.avi", numbered(2), 8)
    assert caught.value.remedy == "use .mp4 or .gif"
