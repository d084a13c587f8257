"""What a written file promises: plays everywhere, holds the pixels, and is whole or absent."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from easyanimate_core.data import Video
from easyanimate_core.errors import MediaError, UnreadableMedia
from easyanimate_core.media.read import read_image, read_metadata, read_video
from easyanimate_core.media.write import (
    NOTES_KEY,
    VideoWriter,
    check_writable,
    next_numbered,
    to_uint8,
    write_video,
)

RED, BLUE, GREEN = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.1, 0.8, 0.2)


def moving_square(frames: int = 9, height: int = 64, width: int = 96, fps: float = 8) -> Video:
    """A red square on blue that moves right by four pixels per frame."""
    pixels = torch.tensor(BLUE).view(1, 3, 1, 1, 1).repeat(1, 1, frames, height, width)
    for f in range(frames):
        pixels[0, :, f, 16:40, 4 * f : 4 * f + 24] = torch.tensor(RED).view(3, 1, 1)
    return Video(pixels, fps, {"prompt": "红色方块", "seed": 43})


def rgb(colour: tuple[float, float, float]) -> np.ndarray:
    return (np.array(colour) * 255).astype(int)


def write_chunks(
    path: Path, *chunks: np.ndarray, then: Callable[[], object] = lambda: None, overwrite: bool = False
) -> None:
    with VideoWriter(path, fps=8, overwrite=overwrite) as writer:
        for chunk in chunks:
            writer.write(chunk)
        then()


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.mark.feature("C046")
@pytest.mark.parametrize(("frames", "fps"), [(9, 8.0), (1, 8.0), (49, 24.0), (5, 24000 / 1001)])
def test_mp4_round_trips_frames_rate_and_colours(tmp_path: Path, frames: int, fps: float) -> None:
    path = moving_square(frames, fps=fps, width=256).save(tmp_path / "new" / "folder" / "clip.mp4")
    read, rate = read_video(path)
    assert read.shape == (frames, 64, 256, 3)
    assert rate == pytest.approx(fps, rel=1e-6)
    for f in range(frames):
        assert np.abs(read[f, 28, 4 * f + 12].astype(int) - rgb(RED)).max() <= 4
        assert np.abs(read[f, 56, 90].astype(int) - rgb(BLUE)).max() <= 4


@pytest.mark.feature("C046")
def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    path = moving_square().save(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == 1  # BT.709, said and not guessed
        assert stream.average_rate == Fraction(8)
        assert float(stream.duration * stream.time_base) == pytest.approx(9 / 8)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index must come first, or nothing plays before the end"


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_notes_are_kept_in_the_file(tmp_path: Path, suffix: str) -> None:
    path = moving_square(1).save(tmp_path / f"clip{suffix}")
    assert read_metadata(path)[NOTES_KEY] == '{"prompt": "红色方块", "seed": 43}'


def test_odd_sides_are_padded_by_their_last_pixels(tmp_path: Path) -> None:
    pixels = torch.tensor(BLUE).view(1, 3, 1, 1, 1).repeat(1, 1, 2, 33, 47)
    pixels[..., 24:, :] = torch.tensor(GREEN).view(3, 1, 1, 1)
    read, _ = read_video(write_video(Video(pixels, 8), tmp_path / "odd.mp4"))
    assert read.shape == (2, 34, 48, 3)
    assert np.abs(read[0, 33, 47].astype(int) - rgb(GREEN)).max() <= 4


@pytest.mark.feature("C046")
@pytest.mark.parametrize("fps", [8.0, 10.0, 24.0])
def test_gif_round_trips_frames_and_rate(tmp_path: Path, fps: float) -> None:
    path = moving_square(12, fps=fps).save(tmp_path / "clip.gif")
    with Image.open(path) as gif:
        assert gif.n_frames == 12
        times = []
        for index in range(12):
            gif.seek(index)
            times.append(gif.info["duration"])
    assert sum(times) == pytest.approx(12_000 / fps, abs=20)  # within two ticks of 1/100 s over the whole clip
    read, rate = read_video(path)
    assert len(read) == 12
    assert rate == pytest.approx(fps, rel=0.05)
    assert np.abs(read[5, 28, 30].astype(int) - rgb(RED)).max() <= 4


def test_gif_keeps_frames_that_do_not_change(tmp_path: Path) -> None:
    still = Video(torch.full((1, 3, 6, 32, 32), 0.5), 8)
    read, _ = read_video(still.save(tmp_path / "still.gif"))
    assert len(read) == 6


@pytest.mark.feature("C046")
def test_png_holds_one_frame_exactly(tmp_path: Path) -> None:
    frame = torch.rand(1, 3, 1, 20, 31, generator=torch.Generator().manual_seed(0))
    path = Video(frame, 8).save(tmp_path / "frame.png")
    assert np.array_equal(read_image(path), to_uint8(frame[0, :, 0].permute(1, 2, 0)))


def test_png_refuses_several_frames_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"can hold 1 frame, not 9") as caught:
        moving_square(9).save(tmp_path / "clip.png")
    assert ".mp4" in caught.value.hint
    with pytest.raises(MediaError, match="holds 1 frame"):
        write_chunks(tmp_path / "b.png", np.zeros((2, 8, 8, 3), np.uint8))
    assert leftovers(tmp_path) == []


def test_floats_are_truncated_and_clamped_not_rounded() -> None:
    values = torch.tensor([-0.5, 0.0, 0.999, 254.6 / 255, 1.0, 7.0])
    assert to_uint8(values).tolist() == [0, 0, 254, 254, 255, 255]
    assert to_uint8(values.bfloat16()).dtype == np.uint8
    same = np.arange(6, dtype=np.uint8)
    assert np.array_equal(to_uint8(same), same)


def test_chunks_equal_the_whole(tmp_path: Path) -> None:
    video = moving_square(10)
    whole = write_video(video, tmp_path / "whole.mp4").read_bytes()
    frames = video.frames[0].permute(1, 2, 3, 0)
    with VideoWriter(tmp_path / "chunks.mp4", fps=8, metadata=read_notes(tmp_path / "whole.mp4")) as writer:
        writer.write(frames[:1])
        writer.write(frames[:0])
        writer.write(to_uint8(frames[1:7]))
        writer.write(frames[7:].numpy())
    assert writer.frames == 10
    assert (tmp_path / "chunks.mp4").read_bytes() == whole


def read_notes(path: Path) -> dict[str, str]:
    return {NOTES_KEY: read_metadata(path)[NOTES_KEY]}


def test_an_existing_file_stays_unless_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("mine")
    with pytest.raises(MediaError, match="exists already") as caught:
        moving_square().save(path)
    assert "--overwrite" in caught.value.hint
    assert path.read_text() == "mine"
    moving_square().save(path, overwrite=True)
    assert len(read_video(path)[0]) == 9


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(MediaError, match="exists already"):
        write_chunks(path, np.zeros((2, 32, 32, 3), np.uint8), then=lambda: path.write_text("somebody else"))
    assert path.read_text() == "somebody else"
    assert leftovers(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_partial_remains_after_an_exception(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    def stop() -> None:
        assert len(leftovers(tmp_path)) == 1, "a partial file is there while writing"
        raise error

    with pytest.raises(error):
        write_chunks(tmp_path / f"clip{suffix}", np.zeros((1, 32, 32, 3), np.uint8), then=stop)
    assert leftovers(tmp_path) == []


def test_a_failed_overwrite_keeps_the_old_file(tmp_path: Path) -> None:
    path = moving_square().save(tmp_path / "clip.mp4")
    before = path.read_bytes()
    bad = np.full((1, 64, 96, 3), np.inf)
    with pytest.raises(MediaError, match="not finite"):
        write_chunks(path, np.zeros((1, 64, 96, 3), np.uint8), bad, overwrite=True)
    assert path.read_bytes() == before


def test_the_finished_file_follows_the_umask(tmp_path: Path) -> None:
    path = moving_square().save(tmp_path / "clip.mp4")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_frames_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    frames = torch.zeros(1, 3, 2, 16, 16)
    frames[0, 0, 1, 3, 3] = float("nan")
    with pytest.raises(MediaError, match="not finite"):
        Video(frames, 8).save(tmp_path / "clip.mp4")
    assert leftovers(tmp_path) == []


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="shape"):
        write_chunks(tmp_path / "a.mp4", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(MediaError, match="follows"):
        write_chunks(tmp_path / "a.mp4", np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 18, 3), np.uint8))
    with pytest.raises(MediaError, match="no frames"):
        write_chunks(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="int64"):
        to_uint8(np.zeros(3, np.int64))
    with pytest.raises(MediaError, match="per second"):
        VideoWriter(tmp_path / "a.mp4", fps=0)
    with pytest.raises(MediaError, match="'60' frames per second"):
        VideoWriter(tmp_path / "a.gif", fps=60)
    with pytest.raises(MediaError, match="crf"):
        VideoWriter(tmp_path / "a.mp4", fps=8, crf=60)
    with pytest.raises(MediaError, match="not open"):
        VideoWriter(tmp_path / "a.mp4", fps=8).write(np.zeros((1, 16, 16, 3), np.uint8))
    assert leftovers(tmp_path) == []


class TestCheckWritable:
    """The command line asks before minutes of work, not after."""

    def test_leaves_no_trace(self, tmp_path: Path) -> None:
        check_writable(tmp_path / "a" / "b" / "clip.mp4")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("name", "says"), [("clip.avi", "'.avi'"), ("clip", "no suffix")])
    def test_unknown_suffix(self, tmp_path: Path, name: str, says: str) -> None:
        with pytest.raises(MediaError, match=says) as caught:
            check_writable(tmp_path / name)
        assert ".mp4, .gif, .png" in caught.value.hint

    def test_folder_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "clip.mp4").mkdir()
        with pytest.raises(MediaError, match="is a folder"):
            check_writable(tmp_path / "clip.mp4", overwrite=True)

    def test_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(MediaError, match="is not a folder"):
            check_writable(tmp_path / "file" / "clip.mp4")

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses files even to root")
    def test_folder_that_refuses_files(self) -> None:
        with pytest.raises(MediaError, match="refuses files"):
            check_writable("/proc/self/clip.mp4")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_without_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(MediaError, match="refuses files"):
            check_writable(tmp_path / "clip.mp4")


@pytest.mark.feature("C061")
def test_numbered_names_never_meet_existing_files(tmp_path: Path) -> None:
    assert next_numbered(tmp_path / "missing").name == "00000001.mp4"
    for name in ("00000001.mp4", "00000001.json", "00000007.png", "notes.txt", "123.mp4"):
        (tmp_path / name).touch()
    assert next_numbered(tmp_path, ".gif") == tmp_path / "00000008.gif"


class TestRead:
    """Bad input is one clear error."""

    def test_limits(self, tmp_path: Path) -> None:
        path = moving_square(9).save(tmp_path / "clip.mp4")
        every, _ = read_video(path)
        some, _ = read_video(path, start=2, max_frames=3)
        assert np.array_equal(some, every[2:5])
        with pytest.raises(UnreadableMedia, match="no frame 20") as caught:
            read_video(path, start=20)
        assert "9 frames" in caught.value.hint

    def test_missing_folder_and_text(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableMedia, match="does not exist"):
            read_video(tmp_path / "none.mp4")
        with pytest.raises(UnreadableMedia, match="is a folder"):
            read_image(tmp_path)
        (tmp_path / "text.mp4").write_text("not a video" * 50)
        for read in (read_video, read_image, read_metadata):
            with pytest.raises(UnreadableMedia, match=r"cannot read .*text\.mp4"):
                read(tmp_path / "text.mp4")

    def test_a_cut_off_file_is_not_a_shorter_video(self, tmp_path: Path) -> None:
        whole = moving_square(49, width=320).save(tmp_path / "clip.mp4").read_bytes()
        for share in (0.2, 0.6, 0.95):
            (tmp_path / "cut.mp4").write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(UnreadableMedia):
                read_video(tmp_path / "cut.mp4")

    def test_a_cut_off_picture(self, tmp_path: Path) -> None:
        whole = moving_square(1).save(tmp_path / "a.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UnreadableMedia):
            read_image(tmp_path / "cut.png")

    def test_pictures_become_upright_rgb(self, tmp_path: Path) -> None:
        picture = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
        picture.save(tmp_path / "clear.png")
        assert read_image(tmp_path / "clear.png").max() == 0
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned by 90°
        Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
        assert read_image(tmp_path / "turned.jpg").shape == (6, 4, 3)

    def test_a_turned_video_becomes_upright(self, tmp_path: Path) -> None:
        """The square is at the top left; a clip turned by 90° clockwise shows it at the top right."""
        path = moving_square(1, height=64, width=96).save(tmp_path / "clip.mp4")
        one, zero = (0x10000).to_bytes(4, "big"), bytes(4)
        identity = one + zero * 3 + one + zero * 3
        turned = zero + one + zero + (-0x10000).to_bytes(4, "big", signed=True) + zero * 4
        data = path.read_bytes()
        track = data.index(identity, data.index(b"tkhd"))
        path.write_bytes(data[:track] + turned + data[track + len(identity) :])
        frames, _ = read_video(path)
        assert frames.shape == (1, 96, 64, 3)
        assert np.abs(frames[0, 12, 64 - 28].astype(int) - rgb(RED)).max() <= 4
