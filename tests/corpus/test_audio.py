"""Sound on the video's own time axis: aligned with the truth, any range like the whole, silence where there is none."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy import ndarray

from affect.corpus import audio, video
from affect.corpus.video import MediaError
from tests.media import Film, Sound, tone, write

SECONDS = 7.0
TICKS = [40 * k for k in range(175)]
RATE = 16_000


def film(name: str, rate: int, *, codec: str = "pcm_s16le", start_s: float = 0.0, channels: int = 1) -> Film:
    """Seven seconds of pictures with a tone that starts late or not, on the first of the channels."""
    samples = np.zeros((channels, round((SECONDS - start_s) * rate)))
    samples[0] = tone(rate, SECONDS - start_s)
    return Film(name=name, ticks=TICKS, sound=Sound(samples=samples, rate=rate, codec=codec, start_s=start_s))


def decoded(path: Path, start_s: float = 0.0, end_s: float = SECONDS) -> ndarray:
    """Samples of a decoded range, as floats."""
    wave = audio.decode(str(path), video.probe(str(path), path.name), start_s, end_s).wave
    assert len(wave) == round((end_s - start_s) * RATE)
    return wave.astype(np.float64)


def delay(wave: ndarray, truth: ndarray, most: int = 16) -> float:
    """Samples, with a fraction, by which a tone of 441 Hz lags behind, from its phase in the middle."""
    middle = slice(2 * RATE, 4 * RATE)
    wheel = np.exp(-2j * np.pi * 441 * np.arange(len(wave))[middle] / RATE)
    phase = np.angle((truth[middle] * wheel).sum() / (wave[middle] * wheel).sum())
    lag = phase / (2 * np.pi * 441 / RATE)
    assert abs(lag) <= most
    return lag


@pytest.mark.parametrize(
    "made",
    [
        film("16.mkv", 16_000),
        film("44.mov", 44_100),
        film("44.mkv", 44_100),  # times in milliseconds, frames of 23.2
        film("48.mkv", 48_000),
        film("8.mov", 8_000),
    ],
    ids=lambda made: made.name,
)
def test_uncompressed_sound_is_the_truth_to_the_last_bits(made: Film, tmp_path: Path):
    wave = decoded(write(tmp_path, made))
    inside = slice(200, -200)
    assert np.abs(wave - tone(RATE, SECONDS))[inside].max() <= 4


@pytest.mark.parametrize(
    ("name", "rate"), [("44.mp4", 44_100), ("48.mp4", 48_000), ("16.mp4", 16_000), ("44.mkv", 44_100)]
)
def test_compressed_sound_is_aligned_to_two_samples_and_has_no_clicks(name: str, rate: int, tmp_path: Path):
    wave = decoded(write(tmp_path, film(name, rate, codec="aac")))
    assert abs(delay(wave, tone(RATE, SECONDS))) < 2
    bend = np.abs(np.diff(wave[RATE:-RATE], 2)).max()  # of the tone itself: 8000 (2 pi 441 / 16000)^2 = 240
    assert bend < 600  # a sample left out or doubled gives up to 1400


@pytest.mark.parametrize(
    "made",
    [
        film("16.mkv", 16_000),
        film("44.mov", 44_100),
        film("44.mkv", 44_100),  # whose rounded times leave it half a sample
        film("48.mp4", 48_000, codec="aac"),
        film("44.mp4", 44_100, codec="aac", channels=2),
        film("late.mp4", 44_100, codec="aac", start_s=0.5),
        film("late.mkv", 16_000, start_s=0.5),
    ],
    ids=lambda made: made.name,
)
def test_any_range_sounds_as_it_does_in_the_whole(made: Film, tmp_path: Path):
    path = write(tmp_path, made)
    whole = decoded(path)
    most = {"44.mkv": 700, "48.mp4": 8}.get(made.name, 2)  # AAC fills bands with noise from a generator that runs on
    for start_s, end_s in [(0.0, 4.0), (0.4, 0.9), (2.0, 6.0), (3.0, 5.0), (1.36, 4.7), (2.0001, 2.9), (5.0, SECONDS)]:
        first = round(start_s * RATE)
        part = decoded(path, start_s, end_s)
        inside = slice(0, len(part) - (400 if end_s == SECONDS else 0))  # the stream's very end is filtered with less
        assert np.abs(part - whole[first : first + len(part)])[inside].max() <= most


def test_what_the_stream_lacks_at_both_ends_is_silence(tmp_path: Path):
    samples = tone(RATE, 2.0)[None]
    made = Film(name="a.mkv", ticks=TICKS, sound=Sound(samples=samples, rate=RATE, start_s=0.5))
    wave = decoded(write(tmp_path, made))
    assert not wave[: RATE // 2].any() and not wave[round(2.5 * RATE) :].any()
    assert np.abs(wave[RATE // 2 : round(2.5 * RATE)] - samples[0]).max() <= 1
    assert decoded(tmp_path / "a.mkv", 1.0, 3.0) == pytest.approx(wave[RATE : 3 * RATE])
    assert not decoded(tmp_path / "a.mkv", 4.0, 6.0).any()


def test_time_counts_from_the_first_picture_and_not_from_the_first_sound(tmp_path: Path):
    sound = Sound(samples=tone(RATE, 4.0)[None], rate=RATE)
    path = write(tmp_path, Film(name="a.mkv", ticks=[500 + tick for tick in TICKS[:80]], sound=sound))
    assert decoded(path, 0.0, 3.0) == pytest.approx(tone(RATE, 4.0)[RATE // 2 : RATE // 2 + 3 * RATE], abs=1)


def test_channels_are_averaged(tmp_path: Path):
    wave = decoded(write(tmp_path, film("a.mov", RATE, channels=2)))  # the second one is silent
    assert np.abs(wave - tone(RATE, SECONDS) / 2).max() <= 2


@pytest.mark.parametrize(("codec", "name"), [("pcm_s16le", "a.mkv"), ("aac", "a.mp4")])
def test_speech_in_the_middle_of_six_channels_is_heard(codec: str, name: str, tmp_path: Path):
    samples = np.zeros((6, round(48_000 * SECONDS)))
    samples[2] = tone(48_000, SECONDS)  # front left and right, centre, low frequencies, back left and right
    wave = decoded(
        write(tmp_path, Film(name=name, ticks=TICKS, sound=Sound(samples=samples, rate=48_000, codec=codec)))
    )
    share = np.abs(wave[RATE:-RATE]).max() / 8000
    assert 0.2 < share <= 1.01 and abs(delay(wave, share * tone(RATE, SECONDS))) < 2


@pytest.mark.parametrize("seconds", [3.0, 11.0])
def test_sound_shorter_or_longer_than_the_pictures_fills_their_time_and_no_more(seconds: float, tmp_path: Path):
    sound = Sound(samples=tone(RATE, seconds)[None], rate=RATE)
    wave = decoded(write(tmp_path, Film(name="a.mkv", ticks=TICKS, sound=sound)))  # of the pictures' length
    end = round(min(seconds, SECONDS) * RATE)
    assert np.abs(wave[:end] - tone(RATE, SECONDS)[:end])[200:-200].max() <= 4 and not wave[end + 200 :].any()


@pytest.mark.parametrize("name", ["clipped", "silent"])
def test_clipped_sound_does_not_wrap_around_and_silence_is_silent(name: str, tmp_path: Path):
    loud = tone(48_000, SECONDS, amplitude=200_000.0).clip(-32_768, 32_767)
    samples = (loud if name == "clipped" else np.zeros_like(loud))[None]
    wave = decoded(write(tmp_path, Film(name="a.mkv", ticks=TICKS, sound=Sound(samples=samples, rate=48_000))))
    if name == "silent":
        assert not wave.any()
    else:  # what resampling overshoots is cut off; the sign stays the tone's
        truth = tone(RATE, SECONDS)
        inside = np.abs(truth) > 2000
        assert (np.sign(wave) == np.sign(truth))[inside].all() and np.abs(wave).max() >= 32_000


def test_a_rate_of_ones_own_is_kept(tmp_path: Path):
    path = write(tmp_path, film("a.mov", 44_100))
    wave = audio.decode(str(path), video.probe(str(path), path.name), 1.0, 2.0, 8_000).wave
    assert len(wave) == 8_000 and np.abs(wave - tone(8_000, SECONDS)[8_000:16_000]).max() <= 4


def test_truncated_sound_ends_where_the_data_do(tmp_path: Path):
    sound = Sound(samples=tone(44_100, SECONDS)[None], rate=44_100, codec="aac")
    path = write(tmp_path, Film(name="a.mp4", ticks=TICKS, sound=sound, container={"movflags": "faststart"}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    wave = decoded(path)
    assert np.abs(wave[RATE : 2 * RATE]).max() > 7000 and not wave[-RATE:].any()
    assert not decoded(path, SECONDS - 1, SECONDS).any()


def test_a_video_without_sound_says_so(tmp_path: Path):
    path = write(tmp_path, Film(name="a.mp4", ticks=TICKS[:5]))
    with pytest.raises(MediaError, match="no audio stream"):
        decoded(path, 0.0, 0.2)


def test_sound_that_cannot_be_decoded_says_so(tmp_path: Path):
    path = write(tmp_path, film("a.mov", RATE))
    path.write_bytes(path.read_bytes().replace(b"sowt", b"zzzz"))
    with pytest.raises(MediaError, match="audio cannot be decoded"):
        decoded(path)


def test_a_sample_rate_that_no_recording_has_is_refused(tmp_path: Path):
    sound = Sound(samples=tone(8_000, 1.0)[None], rate=8_000)
    path = write(tmp_path, Film(name="a.avi", ticks=TICKS[:25], time_base=Fraction(1, 25), sound=sound))
    content = path.read_bytes()
    for per_second in (8_000, 16_000):  # samples, and bytes
        content = content.replace(per_second.to_bytes(4, "little"), (2_000_000_000).to_bytes(4, "little"))
    path.write_bytes(content)
    info = video.probe(str(path), path.name)
    with pytest.raises(MediaError, match="its audio has 2,000,000,000 samples a second, more than 768,000"):
        audio.decode(str(path), info, 0.0, 1.0)


def test_sound_whose_channels_and_rate_change_is_heard_throughout(tmp_path: Path):
    parts = []
    for number, (rate, channels) in enumerate([(48_000, 2), (48_000, 1), (32_000, 1)]):
        samples = np.repeat(tone(rate, 1.0)[None], channels, axis=0)
        sound = Sound(samples=samples, rate=rate, codec="mp2", start_s=float(number))
        ticks = [1000 * number + tick for tick in TICKS[:25]]
        made = Film(name=f"{number}.ts", ticks=ticks, time_base=Fraction(1, 90_000), sound=sound)
        parts.append(write(tmp_path, made).read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    wave = decoded(tmp_path / "a.ts", 0.0, 3.0)
    assert all(np.abs(wave[at : at + RATE // 4]).max() > 4000 for at in (RATE // 2, 3 * RATE // 2, 5 * RATE // 2))


def test_sound_that_begins_late_is_found_from_anywhere(tmp_path: Path):
    """Matroska cannot be sought in by a stream that has nothing there yet."""
    sound = Sound(samples=tone(RATE, 5.0)[None], rate=RATE, codec="aac", start_s=100.0)
    path = write(tmp_path, Film(name="a.mkv", ticks=[1000 * k for k in range(130)], sound=sound))
    assert np.abs(decoded(path, 60.0, 99.0)).max() == 0 and np.abs(decoded(path, 60.0, 122.0)[41 * RATE :]).max() > 4000
    assert np.abs(decoded(path, 0.0, 60.0)).max() == 0


def test_broken_packets_are_counted_where_they_are(tmp_path: Path):
    path = write(tmp_path, film("a.mkv", RATE, codec="aac"))
    with av.open(str(path)) as container:
        pieces = [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(audio=0) if p.size]
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for at_s, piece in pieces:
        if 3.0 <= at_s < 5.0:
            content = content.replace(piece, rng.bytes(len(piece)))
    path.write_bytes(content)
    info = video.probe(str(path), path.name)
    found = [audio.decode(str(path), info, start_s, start_s + 2.0) for start_s in (0.0, 3.0, 5.5)]
    assert found[0].broken == 0 and found[1].broken > 10 and found[2].broken == 0
    assert np.abs(found[2].wave).max() > 4000
