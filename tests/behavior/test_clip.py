"""From a clip to rows: which frames each segment shows, what a broken state does, and descriptions in words."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from affect import timeline
from affect.behavior.checkpoint import SegmentFrames, frame_size
from affect.behavior.clip import BehaviorClip
from affect.behavior.describe import DescriptionClip
from affect.behavior.frames import Segment, segment_frames
from affect.behavior.prompt import PROMPTS
from affect.behavior.qwen import States
from affect.console import tiny
from affect.corpus import video
from affect.corpus.clip import Clip
from affect.settings.extraction import Behavior, Description, Grid
from affect.storage import schema
from affect.storage.store import Store
from tests.media import Film, number_of, write

FPS = 25
FILM = Film(name="film.mp4", ticks=[40 * i for i in range(230)], size=(256, 128))  # 9.2 s: three full segments, a tail


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    path = tmp_path_factory.mktemp("qwen")
    tiny.make_qwen(path)
    return path


@pytest.fixture(scope="module")
def settings(folder: Path) -> Behavior:
    """It, in small pictures and batches of two."""
    return Behavior(weights=str(folder), min_frame_pixels=8_192, max_frame_pixels=32_768, micro_batch=2)


@pytest.fixture(scope="module")
def behavior(settings: Behavior) -> BehaviorClip:
    """It, loaded."""
    return BehaviorClip(settings)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames that show their own number."""
    return write(tmp_path_factory.mktemp("film"), FILM)


def clip_of(path: Path, prompts: tuple[str, ...] = ("neutral",), start_s: float = 0.0, end_s: float = 60.0) -> Clip:
    """A clip of a whole video."""
    return Clip(str(path), video.probe(str(path), path.name), start_s, end_s, Grid(), prompts)


def test_each_segment_shows_its_own_frames_evenly_and_at_their_times(film: Path, settings: Behavior):
    clip = clip_of(film)
    found = dict(segment_frames(clip, settings))
    assert list(found) == [Segment(*segment) for segment in clip.segments]
    for segment, pictures in found.items():
        first, end = round(segment.start_s * FPS), round(segment.end_s * FPS)
        wanted = first + timeline.sampled_frames(end - first, segment.end_s - segment.start_s)
        assert [number_of(picture) for picture in pictures.pictures] == (wanted % 256).tolist()
        assert pictures.time_s == pytest.approx(wanted / FPS - segment.start_s)
        assert pictures.pictures.shape[1:3] == frame_size(256, 128, settings)[::-1]
    assert [len(pictures.time_s) for pictures in found.values()] == [16, 16, 16, 12]  # the tail lasts 3.2 s


def test_only_frames_that_a_segment_shows_are_made_into_pictures(
    film: Path, settings: Behavior, monkeypatch: pytest.MonkeyPatch
):
    given: list[int] = []
    decode = video.decode

    def counted(*args: Any, **options: Any) -> Iterator[tuple[int, np.ndarray]]:
        for frame, picture in decode(*args, **options):
            given.append(frame)
            yield frame, picture

    monkeypatch.setattr(video, "decode", counted)
    list(segment_frames(clip_of(film), settings))
    assert given == sorted(set(given)) and len(given) <= 60  # of 230


def test_a_row_per_segment_and_prompt_with_the_times_of_its_patches(behavior: BehaviorClip, film: Path):
    clip = clip_of(film, ("neutral", "left", "right"))
    table, status, reason = behavior(clip)
    assert (status, reason) == ("ok", "") and table.schema == schema.BEHAVIOR
    rows = table.to_pylist()
    assert [(row["segment"], row["prompt"]) for row in rows] == [(n, p) for n in range(4) for p in clip.prompts]
    for row in rows:
        assert 2 * len(row["patches"]) == len(row["shown_s"]) == (16 if row["segment"] < 3 else 12)
        assert row["start_s"] == row["shown_s"][0] and row["end_s"] == pytest.approx(row["shown_s"][-1] + 1 / FPS)
        assert row["micro_batch"] == 2
    assert table == behavior(clip).table


def test_segments_come_out_the_same_whatever_clip_they_are_in(behavior: BehaviorClip, film: Path):
    whole = behavior(clip_of(film)).table.to_pylist()
    parts = [
        row for s in (0.0, 4.0, 8.0) for row in behavior(clip_of(film, ("neutral",), s, s + 4.0)).table.to_pylist()
    ]
    assert [row["segment"] for row in parts] == [row["segment"] for row in whole]
    for mine, other in zip(parts, whole, strict=True):
        assert mine["shown_s"] == pytest.approx(other["shown_s"])
        assert np.array(mine["multimodal"], dtype=float) == pytest.approx(
            np.array(other["multimodal"], float), abs=0.02
        )


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_video_of_fewer_than_four_frames_is_one_segment_of_what_there_is(
    frames: int, behavior: BehaviorClip, tmp_path: Path
):
    path = write(tmp_path, Film(name="short.mp4", ticks=[100 * i for i in range(frames)]))
    table, status, _ = behavior(clip_of(path))
    assert status == "ok" and table.num_rows == 1
    assert len(table["patches"][0]) == (frames + 1) // 2


def test_pictures_that_cannot_be_decoded_are_counted_and_the_others_are_shown(
    behavior: BehaviorClip, film: Path, monkeypatch: pytest.MonkeyPatch
):
    decode = video.decode

    def damaged(*args: Any, **options: Any) -> Iterator[tuple[int, np.ndarray]]:
        return ((frame, picture) for frame, picture in decode(*args, **options) if not 60 <= frame < 150)

    monkeypatch.setattr(video, "decode", damaged)
    table, status, reason = behavior(clip_of(film))
    assert status == "degraded" and reason == "28 of 60 pictures cannot be decoded"
    times = [time for row in table["shown_s"].to_pylist() for time in row]
    assert len(times) == 32 and not any(2.4 <= time < 6.0 for time in times)
    monkeypatch.setattr(video, "decode", lambda *_, **__: iter(()))
    assert behavior(clip_of(film))[1:] == ("failed", "not one frame can be decoded")


def test_a_hole_in_the_video_is_nothing_that_is_missing(
    behavior: BehaviorClip, describer: DescriptionClip, tmp_path: Path
):
    path = write(tmp_path, Film(name="hole.mp4", ticks=[*range(0, 8000, 200), *range(130_000, 134_000, 200)]))
    for extractor in (behavior, describer):
        found = extractor(clip_of(path, start_s=60.0, end_s=120.0))
        assert (found.status, found.reason, found.table.num_rows) == ("ok", "", 0)
        before = extractor(clip_of(path, end_s=60.0))
        assert before.status == "ok" and before.table["segment"].to_pylist() == list(range(before.table.num_rows))
        assert extractor(clip_of(path, start_s=120.0, end_s=180.0)).status == "ok"


def test_a_picture_of_a_shape_that_the_model_cannot_be_shown_is_the_inputs_fault(
    behavior: BehaviorClip, tmp_path: Path
):
    path = write(tmp_path, Film(name="thin.mp4", ticks=[0, 200, 400], size=(4096, 16)))
    with pytest.raises(video.MediaError, match="pictures of 4096 x 16 cannot be shown"):
        behavior(clip_of(path))


def spoilt(behavior: BehaviorClip, monkeypatch: pytest.MonkeyPatch, numbers: set[int], value: float) -> None:
    """Let the first number of some segments' states, in their order, be another one."""
    states, count = behavior._model.states, iter(range(100))

    def other(asked: Any) -> list[list[States]]:
        answers = states(asked)
        for answer in answers:
            if next(count) in numbers:
                answer[0].multimodal[0] = value
        return answers

    monkeypatch.setattr(behavior._model, "states", other)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6], ids=["nan", "inf", "more than 16 bits hold"])
def test_a_state_that_is_no_number_has_no_row_and_a_reason_that_names_its_segment(
    value: float, behavior: BehaviorClip, film: Path, monkeypatch: pytest.MonkeyPatch
):
    spoilt(behavior, monkeypatch, {1, 3}, value)
    table, status, reason = behavior(clip_of(film))
    assert status == "degraded" and table["segment"].to_pylist() == [0, 2]
    assert reason == "states of 2 of 4 segments are not finite: 1, 3"


def test_a_clip_of_which_no_state_is_a_number_failed(
    behavior: BehaviorClip, film: Path, monkeypatch: pytest.MonkeyPatch
):
    spoilt(behavior, monkeypatch, set(range(4)), np.nan)
    table, status, reason = behavior(clip_of(film))
    assert (table.num_rows, status) == (0, "failed") and "not finite: 0, 1, 2, 3" in reason


def test_batches_are_made_while_the_model_computes(behavior: BehaviorClip, film: Path, monkeypatch: pytest.MonkeyPatch):
    """The second batch is prepared before the first one's states are read, by another thread."""
    import threading

    order: list[str] = []
    prepared = threading.Event()
    prepare, states = behavior._model.prepare_ahead, behavior._model.states

    def preparing(pictures: tuple[SegmentFrames, ...], prompts: list[str]) -> Any:
        order.append(threading.current_thread().name)
        if len(order) == 2:
            prepared.set()
        return prepare(pictures, prompts)

    def computing(asked: Any) -> list[list[States]]:
        assert prepared.wait(timeout=30)
        return states(asked)

    monkeypatch.setattr(behavior._model, "prepare_ahead", preparing)
    monkeypatch.setattr(behavior._model, "states", computing)
    assert behavior(clip_of(film)).table.num_rows == 4
    assert threading.main_thread().name not in order


@pytest.fixture(scope="module")
def describer(settings: Behavior) -> DescriptionClip:
    """The same checkpoint with its head."""
    return DescriptionClip(settings, Description(max_tokens=12))


def test_every_segment_is_described_for_everyone_asked_about(describer: DescriptionClip, film: Path):
    table, status, _ = describer(clip_of(film, ("neutral", "left")))
    assert status == "ok" and table.schema == schema.DESCRIPTION
    pairs = list(zip(table["segment"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    assert pairs == [(n, p) for n in range(4) for p in ("neutral", "left")]
    assert table == describer(clip_of(film, ("neutral", "left"))).table


def test_a_description_is_what_the_model_writes_alone_token_by_token(describer: DescriptionClip, film: Path):
    """Greedy decoding of one segment without batches, paddings or caches."""
    import torch

    checkpoint = describer._checkpoint
    pairs = list(segment_frames(clip_of(film), describer._behavior))
    texts = describer(clip_of(film)).table["text"].to_pylist()
    for (_, pictures), text in [*zip(pairs, texts, strict=True)][-2:]:  # the last batch is padded
        inputs = checkpoint.inputs([pictures], [checkpoint.chat(PROMPTS["neutral"])])
        written: list[int] = []
        with torch.inference_mode():
            for _ in range(12):
                token = checkpoint.model(**inputs, use_cache=False).logits[0, -1].argmax()
                written.append(int(token))
                for name, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
                    last = torch.full((1, 1), int(value), dtype=inputs[name].dtype)
                    inputs[name] = torch.cat([inputs[name], last], dim=1)
        stops = [i for i, t in enumerate(written) if t in describer._generation.eos_token_id]
        plain = checkpoint.processor.tokenizer.decode(written[: stops[0]] if stops else written)
        for special in checkpoint.processor.tokenizer.all_special_tokens:
            plain = plain.replace(special, "")
        assert text == plain.strip()


def test_a_clip_without_segments_has_an_empty_table_of_the_right_kind(
    behavior: BehaviorClip, describer: DescriptionClip, film: Path
):
    for extractor, rows in ((behavior, schema.BEHAVIOR), (describer, schema.DESCRIPTION)):
        found = extractor(clip_of(film, start_s=60.0, end_s=120.0))
        assert found.status == "ok" and found.table == pa.Table.from_pylist([], schema=rows)


def test_segments_that_were_halved_for_lack_of_memory_are_said_and_a_comparison_sees_them(
    behavior: BehaviorClip, film: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Their last digits differ under the same address: rows and reason tell why."""
    clip = clip_of(film)
    whole = behavior(clip)
    decoder = behavior._model._model.language_model
    forward = decoder.forward

    def small_memory(*args: Any, **inputs: Any) -> Any:
        if len(inputs["inputs_embeds"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **inputs)

    monkeypatch.setattr(decoder, "forward", small_memory)
    monkeypatch.setattr(behavior._model.in_memory, "_too_large", math.inf)
    halved = behavior(clip)
    assert (whole.status, whole.reason) == ("ok", "") and halved.status == "ok"
    number = len(clip.segments)
    assert f"{number} of {number} segments were computed fewer at once than micro_batch" in halved.reason
    assert set(halved.table["micro_batch"].to_pylist()) == {1} != set(whole.table["micro_batch"].to_pylist())
    one, other = (Store(str(tmp_path / name)) for name in ("whole", "halved"))
    assert one.put("behavior/a.parquet", whole) != other.put("behavior/a.parquet", halved)
    assert one.outcome("behavior/a.parquet").reason != other.outcome("behavior/a.parquet").reason
