"""The generated demo corpus: its layout, its labels and its determinism, on the micro size."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from affect.corpus.demo import SAMPLE_RATE, TICKS, VideoSpec, make_corpus, video_specs, write_video


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro corpus from seed 0."""
    folder = tmp_path_factory.mktemp("micro")
    make_corpus(folder, "micro", seed=0)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file, by its path in `folder`."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def short(spec: VideoSpec, seconds: float) -> VideoSpec:
    """The same video, cut short."""
    return VideoSpec(**{**vars(spec), "seconds": seconds})


def frame_times(path: Path) -> list[float]:
    """Presentation times of a video's frames, in seconds."""
    with av.open(path) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_a_micro_corpus_has_one_person_in_each_split(micro: Path) -> None:
    assert sorted(files(micro)) == [
        "corpus.json",
        "held_out/labels/video03.txt",
        "held_out/template.txt",
        "held_out/videos/video03.mp4",
        "labels/Train_Set/video01.txt",
        "labels/Validation_Set/video02.txt",
        "videos/video01.mp4",
        "videos/video02.mp4",
    ]


def test_a_label_file_has_one_row_for_each_frame_and_every_value_is_in_range(micro: Path) -> None:
    for path in [*micro.glob("labels/*/*.txt"), *micro.glob("held_out/labels/*.txt")]:
        header, *rows = path.read_text().splitlines()
        values = np.array([[float(cell) for cell in row.split(",")] for row in rows])
        missing = (values == -5).all(axis=1)
        assert header == "valence,arousal"
        assert len(rows) == len(frame_times(next(micro.rglob(f"{path.stem}.mp4")))) == 50
        assert missing.sum() == (0 if "held_out" in path.parts else 4)
        assert np.abs(values[~missing]).max() <= 1
        assert (np.ptp(values[~missing], axis=0) > 1.0).all()


def test_the_template_names_every_held_out_frame_once_in_order(micro: Path) -> None:
    header, *rows = (micro / "held_out/template.txt").read_text().splitlines()
    assert header == "image_location,valence,arousal"
    assert rows == [f"video03/{k:05d}.jpg,-5,-5" for k in range(1, 51)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(micro: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path / "again", "micro", seed=0)
    assert files(tmp_path / "again") == files(micro)
    write_video(video_specs("micro", seed=1)[0], tmp_path / "other")
    for name, content in files(tmp_path / "other").items():
        assert content != (micro / name).read_bytes()


def test_a_finished_corpus_is_left_alone_and_one_of_another_seed_is_refused(micro: Path) -> None:
    calls: list[int] = []
    make_corpus(micro, "micro", seed=0, on_video=lambda done, total: calls.append(done))
    assert not calls
    with pytest.raises(ValueError, match="another demo corpus"):
        make_corpus(micro, "micro", seed=1)


def test_the_demo_specs_hold_the_cases_that_real_corpora_have() -> None:
    specs = video_specs("demo")
    counts = {split: sum(len(s.people) for s in specs if s.split == split) for split in {s.split for s in specs}}
    assert counts == {"train": 10, "development": 3, "held_out": 5}
    assert [[p.track for p in s.people] for s in specs if len(s.people) == 2] == [["video02_left", "video02_right"]]
    assert sum(not s.has_audio for s in specs) == sum(s.variable_rate for s in specs) == 1
    assert all(14 <= s.seconds <= 16 for s in specs)


def test_two_people_stand_side_by_side_and_have_their_own_labels(tmp_path: Path) -> None:
    spec = short(next(s for s in video_specs("demo") if len(s.people) == 2), 1.2)
    assert write_video(spec, tmp_path) == 18
    left, right = ((tmp_path / f"labels/Train_Set/{spec.name}_{side}.txt").read_text() for side in ("left", "right"))
    assert left != right
    with av.open(tmp_path / f"videos/{spec.name}.mp4") as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (480, 320)


def test_frame_intervals_vary_only_in_the_variable_rate_video_and_one_video_is_silent(tmp_path: Path) -> None:
    for spec in (short(s, 1.2) for s in video_specs("demo")[2:5]):
        write_video(spec, tmp_path)
        path = tmp_path / f"videos/{spec.name}.mp4"
        times = frame_times(path)
        intervals = {round((b - a) * TICKS) for a, b in pairwise(times)}
        assert times[0] == 0
        assert (len(intervals) > 5) if spec.variable_rate else (intervals == {TICKS // 15})
        with av.open(path) as container:
            audio = container.streams.audio
            assert [(stream.rate, stream.layout.name) for stream in audio] == [(SAMPLE_RATE, "mono")] * spec.has_audio
