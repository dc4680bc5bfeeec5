"""Frames by presentation time: exact times, any range like the whole, and every way a file can be broken."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest

from affect.corpus import video
from affect.corpus.probe import Probe
from affect.corpus.video import MediaError
from affect.storage import files
from tests.media import RED, Film, Sound, number_of, picture, tone, turned, write

NUM = 30
EVEN = [40 * k for k in range(NUM)]
UNEVEN = [0, *np.cumsum(np.random.default_rng(0).integers(20, 120, NUM - 1)).tolist()]
X264 = "bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"
X265 = "keyint=12:min-keyint=12:scenecut=0:bframes=3:log-level=none"
VPX = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
AVI = Fraction(1, 25)

FILMS = [
    Film(name="even.mp4", ticks=EVEN),
    Film(name="uneven.mp4", ticks=UNEVEN),
    Film(name="b_frames.mp4", ticks=UNEVEN, options={"x264-params": X264}),
    Film(name="open_group.mp4", ticks=EVEN, options={"x264-params": X264 + ":open-gop=1"}),
    Film(name="fragments.mp4", ticks=UNEVEN, options={"x264-params": X264}, container={"movflags": "frag_keyframe"}),
    Film(name="b_frames.flv", ticks=UNEVEN, options={"x264-params": X264}),
    Film(name="hevc.mp4", ticks=EVEN, codec="libx265", size=(128, 96), options={"x265-params": X265}),
    Film(name="vp9.webm", ticks=UNEVEN, codec="libvpx-vp9", options=VPX),
    Film(name="odd_size.mkv", ticks=UNEVEN, codec="libvpx-vp9", size=(67, 51), options=VPX),
    Film(name="h264.avi", ticks=EVEN, time_base=AVI),
    Film(name="h264_b_frames.avi", ticks=EVEN, time_base=AVI, options={"x264-params": X264}),
    Film(name="mpeg4_b_frames.avi", ticks=EVEN, time_base=AVI, codec="mpeg4", options={"bf": "2"}),
    Film(name="late.mp4", ticks=[1500 + tick for tick in UNEVEN]),
    Film(name="late.mkv", ticks=[1500 + tick for tick in UNEVEN]),
]


def probed(path: Path) -> tuple[str, Probe]:
    return str(path), video.probe(str(path), path.name)


def numbers(path: Path, first: int = 0, last: int = 10**6) -> list[int]:
    """Numbers of the decoded frames, each of which has to show its own."""
    uri, info = probed(path)
    frames = list(video.decode(uri, info, first, last))
    assert [number_of(rgb) for _, rgb in frames] == [number for number, _ in frames]
    return [number for number, _ in frames]


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_times_are_exact_and_any_range_holds_the_same_frames_as_the_whole(film: Film, tmp_path: Path):
    uri, info = probed(write(tmp_path, film))
    assert info.time_s == pytest.approx((np.array(film.ticks) - film.ticks[0]) / 1000, abs=1e-9)
    assert (info.width, info.height, info.rotation, info.has_audio) == (*film.size, 0, False)
    whole = list(video.decode(uri, info, 0, NUM))
    assert [number for number, _ in whole] == list(range(NUM))
    assert [number_of(rgb) for _, rgb in whole] == list(range(NUM))
    for first in range(NUM):
        part = list(video.decode(uri, info, first, first + 3))
        assert [number for number, _ in part] == list(range(first, min(first + 3, NUM)))
        assert all((rgb == whole[number][1]).all() for number, rgb in part)


def test_a_video_that_starts_late_has_times_from_its_first_frame(tmp_path: Path):
    _, info = probed(write(tmp_path, Film(name="a.mkv", ticks=[1500, 1540, 1600])))
    assert info.start_s == pytest.approx(1.5) and info.time_s.tolist() == pytest.approx([0, 0.04, 0.1])


def test_one_frame_is_a_video(tmp_path: Path):
    path = write(tmp_path, Film(name="one.mp4", ticks=[0]))
    _, info = probed(path)
    assert info.time_s.tolist() == [0] and info.clock.duration_s == 0.04 and numbers(path) == [0]


def test_an_empty_range_and_one_past_the_end_have_no_frames(tmp_path: Path):
    path = write(tmp_path, FILMS[0])
    assert numbers(path, 5, 5) == numbers(path, NUM, NUM + 9) == numbers(path, 9, 3) == []


def test_frames_are_scaled_to_the_size_asked_for(tmp_path: Path):
    uri, info = probed(write(tmp_path, FILMS[0]))
    for number, rgb in video.decode(uri, info, 0, NUM, width=160, height=128):
        assert rgb.shape == (128, 160, 3) and number_of(rgb) == number


@pytest.mark.parametrize(("quarter_turns", "corner"), [(0, (3, 3)), (1, (3, -4)), (2, (-4, -4)), (3, (-4, 3))])
def test_a_rotated_recording_is_shown_upright(quarter_turns: int, corner: tuple[int, int], tmp_path: Path):
    path = write(tmp_path, Film(name="a.mp4", ticks=EVEN[:4]))
    path.write_bytes(turned(path.read_bytes(), quarter_turns))
    uri, info = probed(path)
    width, height = (48, 64) if quarter_turns % 2 else (64, 48)
    assert (info.width, info.height) == (width, height)
    for _, rgb in video.decode(uri, info, 1, 3):
        assert rgb.shape == (height, width, 3) and np.abs(rgb[corner].astype(int) - RED).max() < 40
    for _, rgb in video.decode(uri, info, 1, 3, width=2 * width, height=2 * height):
        assert rgb.shape == (2 * height, 2 * width, 3)


def test_a_truncated_video_has_the_frames_that_are_there(tmp_path: Path):
    path = write(tmp_path, Film(name="a.mp4", ticks=[40 * k for k in range(100)], container={"movflags": "faststart"}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    uri, info = probed(path)
    decoded = [number for number, _ in video.decode(uri, info, 0, 100)]
    assert 20 < len(info.time_s) < 90 and set(range(len(info.time_s) - 2)) <= set(decoded)


def test_broken_frames_are_left_out_and_the_others_keep_their_numbers(tmp_path: Path):
    options = {"bf": "0", "g": "1"}
    path = write(tmp_path, Film(name="a.mkv", ticks=EVEN, options=options, codec="libx264"))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    at = content.index(packets[10])
    content[at : at + len(packets[10])] = bytes(len(packets[10]))
    path.write_bytes(content)
    shown = numbers(path)
    assert 10 not in shown and set(shown) >= set(range(NUM)) - {9, 10, 11}


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"hello world " * 99, "cannot be opened"), (None, "no video stream")]
)
def test_what_is_no_video_says_so(content: bytes | None, message: str, tmp_path: Path):
    path = tmp_path / "a.mp4"
    if content is None:
        with av.open(str(path), "w") as container:
            audio = container.add_stream("aac", rate=16_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux([*audio.encode(frame), *audio.encode()])
    else:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        probed(path)


def test_an_unknown_codec_and_a_missing_file_are_told_apart(tmp_path: Path):
    path = write(tmp_path, Film(name="a.mp4", ticks=EVEN))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(MediaError, match="cannot be decoded"):
        probed(path)
    with pytest.raises(FileNotFoundError):
        probed(tmp_path / "missing.mp4")


def test_a_video_that_is_moved_has_another_fingerprint_and_the_same_content(tmp_path: Path):
    path = write(tmp_path, FILMS[2])
    here, moved = (video.probe(str(path), name) for name in ("a.mp4", "below/b.mp4"))
    assert here.fingerprint != moved.fingerprint and here.content == moved.content
    path.write_bytes(path.read_bytes() + b"\0")
    assert video.probe(str(path), "a.mp4").content != here.content


def test_a_video_in_a_bucket_is_read_as_on_a_disk(tmp_path: Path):

    path = write(tmp_path, FILMS[2])
    files.write("memory://videos/b_frames.mp4", path.read_bytes())
    remote = video.probe("memory://videos/b_frames.mp4", path.name)
    local = video.probe(str(path), path.name)
    assert remote.fingerprint == local.fingerprint and (remote.time_s == local.time_s).all()
    assert [n for n, _ in video.decode("memory://videos/b_frames.mp4", remote, 17, 21)] == [17, 18, 19, 20]


def test_sound_is_noticed(tmp_path: Path):
    sound = Sound(samples=tone(16_000, 1.0)[None], rate=16_000)
    assert probed(write(tmp_path, Film(name="a.mkv", ticks=EVEN, sound=sound)))[1].has_audio


def test_a_title_in_another_encoding_is_no_obstacle(tmp_path: Path):
    plain, titled = write(tmp_path, Film(name="plain.avi", ticks=EVEN[:3], time_base=AVI)), tmp_path / "titled.avi"
    with av.open(str(plain)) as source, av.open(str(titled), "w") as target:
        target.metadata["title"] = "Caf@@"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = titled.read_bytes()
    assert b"Caf@@" in content
    titled.write_bytes(content.replace(b"Caf@@", b"Caf\xe9s"))  # Latin-1
    assert len(video.probe(str(titled), titled.name).time_s) == 3


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("place", ["{}", "memory://{}"])
def test_what_a_file_points_at_is_not_read(kind: str, place: str, tmp_path: Path):
    write(tmp_path, Film(name="secret.mp4", ticks=EVEN[:3]))
    path = tmp_path / "list.mp4"
    path.write_text(PLAYLISTS[kind])
    uri = place.format(path)
    if place != "{}":
        files.write(uri, path.read_bytes())
    with pytest.raises(MediaError, match="cannot be opened as a video"):
        video.probe(uri, path.name)


@pytest.mark.parametrize("name", ["-i.mp4", "concat:a|b.mp4", "%05d.mp4", "a\nb.mp4", "x" * 251 + ".mp4", "file:a.mp4"])
def test_a_name_is_only_a_name(name: str, tmp_path: Path):
    write(tmp_path, Film(name="plain.mp4", ticks=EVEN[:3])).rename(tmp_path / name)
    assert len(video.probe(str(tmp_path / name), name).time_s) == 3


def test_bombs_are_refused_by_name(tmp_path: Path):
    long = write(tmp_path, Film(name="long.mkv", ticks=[0, 40, 90_000_000]))
    with pytest.raises(MediaError, match="its frames span 25 hours, more than 24"):
        probed(long)
    wide = write(tmp_path, Film(name="wide.avi", codec="rawvideo", ticks=EVEN[:3], time_base=AVI, options={}))
    content = wide.read_bytes()
    for size in ((64).to_bytes(4, "little"), (48).to_bytes(4, "little")):
        content = content.replace(size, (16_000).to_bytes(4, "little"))
    wide.write_bytes(content)
    with pytest.raises(MediaError, match="16000 x 16000 pixels, more than 67,108,864"):
        probed(wide)


def test_more_streams_than_a_recording_has_are_refused(tmp_path: Path):
    path = tmp_path / "many.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(120):
            container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="it has 121 streams, more than 100"):
        probed(path)


def test_a_damaged_index_that_asks_for_all_memory_is_the_videos_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path, Film(name="a.mp4", ticks=EVEN[:3]))

    def refuse(*_: object, **__: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory", "a.mp4")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(MediaError, match="its index is damaged"):
        probed(path)


def test_a_pipe_is_no_video_and_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="it is no file"):
        probed(tmp_path / "a.mp4")


def test_an_index_of_more_samples_than_bytes_is_refused_before_it_is_given_memory(tmp_path: Path):
    path = write(tmp_path, Film(name="a.mp4", ticks=EVEN[:3]))
    content = bytearray(path.read_bytes())
    at = content.index(b"stsz") + 12
    content[at : at + 4] = (40_000_000).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"its index lists 40,000,000 pictures and sounds, and it has [\d,]+ bytes"):
        probed(path)


def joined(path: Path, *films: Film) -> Path:
    """Transport streams one after the other."""
    path.write_bytes(b"".join(write(path.parent, film).read_bytes() for film in films))
    return path


def test_pictures_that_grow_beyond_what_is_believed_are_broken_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = Film(name="small.ts", ticks=EVEN[:10], time_base=Fraction(1, 90_000))
    large = Film(name="large.ts", ticks=[400 + t for t in EVEN[:10]], size=(640, 480), time_base=Fraction(1, 90_000))
    path = joined(tmp_path / "a.ts", small, large)
    assert {rgb.shape for _, rgb in video.decode(*probed(path), 0, 99)} == {(48, 64, 3), (480, 640, 3)}
    monkeypatch.setattr(video, "MAX_PIXELS", 10_000)
    shown = list(video.decode(*probed(path), 0, 99))
    assert {rgb.shape for _, rgb in shown} == {(48, 64, 3)} and len(shown) >= 8


def test_a_cover_before_the_film_is_not_the_film(tmp_path: Path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        cover, film = (container.add_stream(codec, rate=25) for codec in ("mjpeg", "libx264"))
        for stream, kind in ((cover, "yuvj420p"), (film, "yuv420p")):
            stream.width, stream.height, stream.pix_fmt = 64, 48, kind
        for number in range(NUM):
            rgb = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            for stream in (cover, film) if number == 0 else (film,):
                frame = rgb.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        container.mux([*cover.encode(), *film.encode()])
    assert numbers(path) == list(range(NUM))


def test_a_stream_that_appears_in_mid_file_ends_nothing():
    """PyAV raises an IndexError at its end, before the empty packet that has decoders give what they hold."""

    class Container:
        left: ClassVar = [1, 2, 3, None, 0]

        def demux(self, stream: object) -> Iterator[int]:
            while self.left:
                found = self.left.pop(0)
                if found is None:
                    raise IndexError("list index out of range")
                yield found

    assert list(video.packets.__wrapped__(Container(), None)) == [1, 2, 3, 0]  # as it is without a check of types
