"""Decoding picks the right frames, from any container, and says what is wrong with a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import (
    FORMATS,
    cut_off,
    damage_packets,
    number_of,
    numbered,
    numbers_of,
    write_frames,
    write_numbered,
)
from vdsgen.model.data.decode import Reel, decode_clip
from vdsgen.model.data.video import VideoError, VideoInfo, probe


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 numbered frames at 30 a second, with keyframes 60 frames apart and B-frames."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_numbered(path, 250, rate=30, options={"g": "60", "bf": "2", "preset": "fast"})


@pytest.mark.parametrize("name", FORMATS)
def test_every_container_gives_all_frames_in_order(tmp_path: Path, name: str) -> None:
    path = write_numbered(tmp_path / name, 30, rate=10)
    assert probe(path) == VideoInfo(frames=30, frame_rate=Fraction(10), width=64, height=48)
    video = decode_clip(path, 0, 30)
    assert video.shape == (30, 48, 64, 3) and video.dtype == np.uint8
    assert numbers_of(video) == list(range(30))


@pytest.mark.parametrize(
    ("encoder", "pixel_format"),
    [
        ("ffv1", "yuv444p"),
        ("ffv1", "yuv420p10le"),
        ("ffv1", "gray"),
        ("mjpeg", "yuvj420p"),
        ("prores", "yuv422p10le"),
        ("rawvideo", "nv12"),
        ("libvpx-vp9", "yuva420p"),
    ],
)
def test_pixel_formats_become_rgb(tmp_path: Path, encoder: str, pixel_format: str) -> None:
    path = write_numbered(tmp_path / "x.mkv", 8, encoder=encoder, pixel_format=pixel_format, options={})
    video = decode_clip(path, 0, 8)
    assert numbers_of(video) == list(range(8))
    assert abs(int(video.min()) - 28) < 12 and abs(int(video.max()) - 228) < 12


@pytest.mark.parametrize(("matrix", "height"), [("ITU709", 720), ("ITU601", 64)])
@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("full_range", [True, False])
def test_colours_survive_with_and_without_their_matrix_in_the_file(
    tmp_path: Path, matrix: str, height: int, tagged: bool, full_range: bool
) -> None:
    colour = np.full((1, height, 64, 3), (200, 30, 60), np.uint8)
    path = tmp_path / "colour.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "4"})
        stream.height, stream.width, stream.pix_fmt = height, 64, "yuv420p"
        if tagged:
            stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 6}[matrix]
        stream.codec_context.color_range = 2 if full_range else 1
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(colour[0], format="rgb24")
            levels = "JPEG" if full_range else "MPEG"
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=levels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(decode_clip(path, 0, 1).astype(int) - colour).max() <= 4


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 200),
    frames=st.integers(1, 12),
    rate=st.one_of(st.none(), st.sampled_from([5.0, 7.5, 8.0, 10.0, 24.0, 29.97, 30.0, 47.0])),
)
def test_resampling_takes_the_nearest_frames(
    long_video: Path, start: int, frames: int, rate: float | None
) -> None:
    step = Fraction(1) if rate is None else 30 / Fraction(rate).limit_denominator(10_000)
    # Halves go up: a frame is taken from exactly half-way on.
    expected = [int(start + i * step + Fraction(1, 2)) for i in range(frames)]
    if expected[-1] > 249:
        return
    assert numbers_of(decode_clip(long_video, Fraction(start, 30), frames, rate)) == expected


def test_almost_equal_rates_neither_repeat_nor_drop(tmp_path: Path) -> None:
    ntsc = write_numbered(tmp_path / "ntsc.mp4", 40, rate=Fraction(30000, 1001))
    assert numbers_of(decode_clip(ntsc, 0, 20, 30)) == list(range(20))
    thousandths = write_numbered(tmp_path / "thousandths.mkv", 40, rate=30)
    assert numbers_of(decode_clip(thousandths, Fraction(5, 30), 20, 30)) == list(range(5, 25))


def test_variable_rate_is_sampled_by_presentation_time(tmp_path: Path) -> None:
    times = [10 * i * i for i in range(20)]  # milliseconds
    path = write_numbered(tmp_path / "variable.mp4", 20, rate=1000, times=times)
    picked = numbers_of(decode_clip(path, 0, 8, 5))
    assert picked == [min(range(20), key=lambda i: abs(times[i] - 200 * k)) for k in range(8)]
    assert numbers_of(decode_clip(path, 0, 20)) == list(range(20))


def test_a_frame_that_is_held_stays_until_the_next_is_due(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "held.mp4", 4, rate=100, times=[0, 10, 300, 310])
    assert numbers_of(decode_clip(path, Fraction(1, 10), 4, 2)) == [1, 1, 1, 1]


def test_the_last_consecutive_window_of_an_uneven_video_ends_with_it(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "uneven.mp4", 20, rate=1000, times=[10 * i * i for i in range(20)])
    info = probe(path)
    start = Fraction(info.frames - 8) / info.frame_rate
    assert numbers_of(decode_clip(path, start, 8)) == list(range(12, 20))


@settings(max_examples=30, deadline=None)
@given(
    start=st.fractions(0, 6, max_denominator=1000),
    frames=st.integers(1, 10),
    rate=st.sampled_from([None, 6.0, 24.0, 30.0]),
)
def test_a_reel_gives_what_the_file_gives(
    long_video: Path, start: Fraction, frames: int, rate: float | None
) -> None:
    global _REEL  # decoding 250 frames once is enough
    _REEL = _REEL or Reel(long_video)
    from_file = decode_clip(long_video, start, frames, rate)
    assert np.array_equal(_REEL.window(start, frames, rate), from_file)


_REEL: Reel | None = None


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    for name in ("one.mp4", "one.gif", "one.webm"):
        path = write_numbered(tmp_path / name, 1)
        assert probe(path).frames == 1
        assert numbers_of(decode_clip(path, 0, 1)) == [0]
        assert numbers_of(decode_clip(path, 0, 1, 8)) == [0]


def test_a_window_beyond_the_end_is_refused_with_its_times(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "short.mp4", 12, rate=10)
    with pytest.raises(VideoError, match=r"has 12 frames from 0.00 s on, not 16"):
        decode_clip(path, 0, 16)
    with pytest.raises(VideoError, match=r"ends at 1.30 s, the clip reaches to 3.00 s"):
        decode_clip(path, 0, 4, 1)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write rotation metadata")
    stored = np.zeros((3, 48, 64, 3), np.uint8)
    stored[:, :24, :32] = 255  # top left
    path = write_frames(tmp_path / "rotated.mp4", stored, rotation=degrees)
    upright = np.rot90(stored, degrees // 90, axes=(1, 2))  # counterclockwise
    info, video = probe(path), decode_clip(path, 0, 3)
    assert video.shape == upright.shape == (3, info.height, info.width, 3)
    assert np.abs(video.astype(int) - upright).mean() < 3


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    wide = {"sample_aspect_ratio": Fraction(3, 2)}
    path = write_numbered(tmp_path / "wide.mp4", 4, stream_changes=wide)
    assert (probe(path).width, probe(path).height) == (96, 48)
    assert decode_clip(path, 0, 4).shape == (4, 48, 96, 3)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    picture = np.zeros((2, 32, 32, 4), np.uint8)
    picture[..., 0] = 200
    picture[:, :, :16, 3] = 255  # the left half is opaque red, the right half transparent
    path = write_frames(tmp_path / "clear.mov", picture, encoder="qtrle", pixel_format="argb")
    video = decode_clip(path, 0, 1)[0]
    assert (video[:, :16] == (200, 0, 0)).all() and (video[:, 16:] == 255).all()


def test_a_gif_with_transparent_parts_decodes_to_opaque_pictures(tmp_path: Path) -> None:
    # FFmpeg's encoder writes what did not change as transparent: each frame builds on those before.
    frames = np.full((6, 32, 32, 3), 255, np.uint8)
    for index in range(6):
        frames[index, :, 4 * index : 4 * index + 4] = 0
    path = write_frames(tmp_path / "moving.gif", frames, encoder="gif", pixel_format="rgb8")
    assert ((decode_clip(path, Fraction(3, 10), 2) > 128) == (frames[3:5] > 128)).all()


def test_each_picture_is_transformed_once(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.mp4", 10, rate=10)
    seen: list[int] = []

    def halved(picture: Any) -> Any:
        seen.append(number_of(picture))
        return picture[::2, ::2]

    video = decode_clip(path, 0, 8, 20, transform=halved)
    assert video.shape == (8, 24, 32, 3)
    assert numbers_of(video) == [0, 1, 1, 2, 2, 3, 3, 4]
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("damaged.mp4", {}),
        ("damaged.avi", {"encoder": "mjpeg", "pixel_format": "yuvj420p"}),
        ("damaged.mov", {"encoder": "png", "pixel_format": "rgb24"}),
    ],
)
def test_one_damaged_packet_costs_one_frame_and_many_cost_the_window(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    path = damage_packets(write_numbered(tmp_path / name, 20, **changes), [7])
    assert numbers_of(decode_clip(path, 0, 9)) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert numbers_of(decode_clip(path, 0, 9, 10)) == [0, 1, 2, 3, 4, 5, 6, 6, 8]
    damage_packets(path, [8, 9])
    with pytest.raises(VideoError, match="damaged frames"):
        decode_clip(path, 0, 9)
    with pytest.raises(VideoError, match="damaged frames"):
        Reel(path)


def test_a_file_cut_after_it_was_probed_is_refused(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.mkv", 60, encoder="mjpeg", pixel_format="yuvj420p", options={})
    assert probe(path).frames == 60
    cut_off(path, 0.5)
    assert numbers_of(decode_clip(path, 0, 8)) == list(range(8))
    with pytest.raises(VideoError, match="ends at"):
        decode_clip(path, 5, 8, 10)
    with pytest.raises(VideoError, match="frames from"):
        decode_clip(path, 5, 8)


def test_probing_tells_a_cut_file_from_a_whole_one(tmp_path: Path) -> None:
    # Its header comes first, so it can still be opened after the cut.
    front = write_numbered(tmp_path / "x.mp4", 60, rate=10, container_options={"movflags": "+faststart"})
    assert probe(front).frames == 60
    with pytest.raises(VideoError, match=r"is cut off: its header says 6.00 s of video"):
        probe(cut_off(front, 0.6))
    cut_webm = cut_off(write_numbered(tmp_path / "x.webm", 200), 0.5)
    assert 1 <= probe(cut_webm).frames < 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"not a video at all" * 20, "cannot be decoded"),
        (b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 64, "cannot be decoded|has no video stream"),
    ],
)
def test_files_that_are_no_videos_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=reason) as caught:
        probe(path)
    assert str(path) in str(caught.value) and caught.value.exit_code == 2


def test_sound_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="has no video stream"):
        probe(path)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {0}\n",
    ],
)
def test_playlists_are_not_followed(tmp_path: Path, playlist: str) -> None:
    write_numbered(tmp_path / "secret.mp4", 10)
    path = tmp_path / "clip.mp4"
    path.write_text(playlist.format("secret.mp4"))
    with pytest.raises(VideoError, match="cannot be decoded"):
        probe(path)


@pytest.mark.parametrize("name", ["a b.mp4", "-x.mp4", "file:x.mp4", "%03d.mp4", "日本.mp4", "a\nb.mp4"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_numbered(tmp_path / "plain.mp4", 4).rename(path)
    assert numbers_of(decode_clip(path, 0, 4)) == [0, 1, 2, 3]
    assert "\n" not in str(VideoError(path, "is odd"))


def test_frames_of_a_changed_size_come_in_the_first_size(tmp_path: Path) -> None:
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        container.mux(_jpegs(stream, numbered(3), 0))
        bigger = av.CodecContext.create("mjpeg", "w")
        bigger.height, bigger.width, bigger.pix_fmt = 96, 128, "yuvj420p"
        bigger.time_base = Fraction(1, 10)
        for packet in _jpegs(bigger, numbered(3, height=96, width=128, first=3), 3):
            packet.stream = stream
            container.mux(packet)
    video = decode_clip(path, 0, 6)
    assert video.shape == (6, 48, 64, 3)
    assert numbers_of(video) == list(range(6))


def _jpegs(encoder: Any, frames: Any, first: int) -> list[Any]:
    packets = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuvj420p")
        frame.pts, frame.time_base = first + index, Fraction(1, 10)
        packets += encoder.encode(frame)
    return packets + list(encoder.encode(None))


def test_real_clips_decode(demo_clips: Path) -> None:
    info = probe(demo_clips / "carphone_pristine.mp4")
    assert (info.frames, info.frame_rate) == (120, Fraction(30000, 1001))
    video = decode_clip(demo_clips / "bikes.mp4", 2, 16, 8)
    assert video.shape == (16, 272, 640, 3)
    assert 20 < video.mean() < 235 and video.std() > 20
