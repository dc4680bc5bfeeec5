"""Behaviour through the pipeline: two people of one video, descriptions, half seconds, weights that cannot be had."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from _pytest.capture import CaptureFixture
from ray.exceptions import RayError

from affect.behavior.part import Patches
from affect.corpus import affwild2
from affect.corpus.demo import Person, VideoSpec, write_video
from affect.corpus.videos import find
from affect.evaluation.evaluate import score_predictions
from affect.pipeline import job
from affect.pipeline.assemble import assemble
from affect.pipeline.evaluate import score_models
from affect.pipeline.extract import Summary, extract
from affect.pipeline.predict import predict
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.plan.addresses import feature_addresses, prompts_of
from affect.settings.labels import Labels
from affect.settings.run import Run
from affect.storage.columns import matrix
from affect.storage.extracted import Extracted
from affect.storage.store import Store
from affect.tracks.tables import TrackRef, load_track, to_tables
from affect.trained.models import load_model, load_models
from affect.weights import WeightsError
from tests.conftest import Micro
from tests.pipeline.test_extract import objects

pytestmark = pytest.mark.usefixtures("pools_here")

TRACKS = ["pair_left", "pair_right"]


class Pair:
    """A video of two people, extracted with descriptions.

    Args:
        run: behaviour alone.
        root: where it lies.
        summary: of the extraction.
    """

    def __init__(self, run: Run, root: Path, summary: Summary) -> None:
        self.run, self.root, self.summary = run, root, summary
        self.videos, self.store = str(root / "videos"), Store(str(root / "store"))

    def again(self, **options: bool) -> Summary:
        """The same extraction once more."""
        return extract(self.run, self.videos, self.store, tracks=TRACKS, **options)

    def refs(self) -> list[TrackRef]:
        """The two tracks, assembled."""
        videos = probe_videos(find(self.videos), self.store, prompts_of(["pair"], TRACKS))
        labels = affwild2.read_folder(str(self.root / "labels" / "Train_Set"))
        return assemble(self.run, videos, {"train": labels}, self.store)

    def table(self, kind: str) -> pa.Table:
        """All rows of a kind, in order."""
        parts = [self.store.get(key).table for key in sorted(self.store.keys(kind))]
        return pa.concat_tables([part.replace_schema_metadata() for part in parts])


@pytest.fixture(scope="module")
def pair(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two people side by side, of whom the labels name both."""
    root = tmp_path_factory.mktemp("pair")
    people = tuple(Person(name, (7, i), i == 0) for i, name in enumerate(TRACKS))
    write_video(VideoSpec("pair", "train", people, (7,), 10, 5.0, has_audio=False), root)
    run = replace(micro.run, name="behavior", systems=("behavior",))
    summary = extract(run, str(root / "videos"), Store(str(root / "store")), tracks=TRACKS, describe=True)
    return Pair(run, root, summary)


def test_left_and_right_differ_in_their_last_token_alone(pair: Pair):
    rows = pair.table("behavior").to_pylist()
    assert [(row["segment"], row["prompt"]) for row in rows] == [
        (n, prompt) for n in range(2) for prompt in ("neutral", "left", "right")
    ]
    for i in (0, 3):
        neutral, left, right = rows[i : i + 3]
        assert neutral["vision"] == left["vision"] == right["vision"]
        assert neutral["patches"] == left["patches"] == right["patches"]
        states = [np.array(row["multimodal"], dtype=float) for row in (neutral, left, right)]
        assert min(np.abs(a - b).max() for a, b in zip(states, [*states[1:], states[0]], strict=True)) > 0.02


def test_each_track_gets_the_states_that_were_asked_about_its_person(pair: Pair):
    refs = pair.refs()
    table = pair.table("behavior")
    for ref in refs:
        rows = table.filter(pa.array([prompt == ref.person for prompt in table["prompt"].to_pylist()]))
        part = load_track(pair.store, ref).parts["behavior"]
        assert np.array_equal(part.multimodal, matrix(rows["multimodal"]))
        states = np.concatenate([np.stack(row) for row in rows["patches"].to_pylist()]).astype(np.float16)
        assert np.array_equal(part.patches.states, states)
        edges = part.patches.ranges
        assert edges[0, 0] == 0 and edges[-1, 1] == 50 and (edges[:, 0] <= edges[:, 1]).all()
        assert [int((part.patches.segment == n).sum()) for n in range(2)] == [8, 6]
    assert {ref.person for ref in refs} == {"left", "right"}


@pytest.mark.parametrize("broken", [[0], [1], [0, 1]])
def test_a_track_on_disk_keeps_the_half_seconds_of_the_segments_that_have_any(
    pair: Pair, broken: list[int], tmp_path: Path
):
    ref = pair.refs()[0]
    part = load_track(pair.store, ref).parts["behavior"]
    kept = ~np.isin(part.patches.segment, broken)
    patches = Patches(part.patches.states[kept], part.patches.ranges[kept], part.patches.segment[kept])
    track = replace(load_track(pair.store, ref), parts={"behavior": replace(part, patches=patches)})
    store = Store(str(tmp_path))
    for part, table in to_tables(track).items():
        if part in ref.keys:
            store.put(ref.keys[part], Extracted(table))
    back = load_track(store, ref).parts["behavior"].patches
    assert np.array_equal(back.segment, patches.segment) and np.array_equal(back.ranges, patches.ranges)
    assert back.states.tolist() == patches.states.tolist()


def test_descriptions_are_a_table_of_their_own_and_resume(pair: Pair, capsys: CaptureFixture[str]):
    assert pair.summary.done == {"ok": 6}  # three clips: states and words
    table = pair.table("description")
    assert table.column_names == ["video", "segment", "prompt", "start_s", "end_s", "text"] and table.num_rows == 6
    before = objects(pair.store.uri)
    assert pair.again(describe=True).done.total() == 0
    gone = sorted(pair.store.keys("description"))[0]
    (Path(pair.store.uri) / gone).unlink()
    assert pair.again().done.total() == 0  # nobody asked for words
    capsys.readouterr()
    assert pair.again(describe=True).done == {"ok": 1}
    assert "1 of 3 clips to do" in capsys.readouterr().out
    assert objects(pair.store.uri) == before


def test_people_can_be_asked_about_without_labels(pair: Pair):
    run = replace(pair.run, behavior=replace(pair.run.behavior, ask=("left", "right")))
    assert feature_addresses(run) == feature_addresses(pair.run)
    assert extract(run, pair.videos, pair.store).done.total() == 0  # the same three prompts, so the same objects


def test_evaluation_reads_what_was_extracted_with_more_questions(pair: Pair, tmp_path: Path):
    """Labels that name no side, and a run that asks about both."""
    run = replace(pair.run, behavior=replace(pair.run.behavior, ask=("left", "right")))
    shutil.copy(pair.root / "labels" / "Train_Set" / "pair_left.txt", tmp_path / "pair.txt")
    judged = score_models(run, [], pair.videos, str(tmp_path), pair.store, {})
    assert list(judged.truth.gold) == ["pair"] and judged.split == "held_out"


def test_weights_that_cannot_be_had_are_one_line_before_any_actor_starts(pair: Pair, tmp_path: Path):
    for name in ("no/where", str(Path(pair.run.wavlm.weights))):
        run = replace(pair.run, behavior=replace(pair.run.behavior, weights=name))
        with pytest.raises(ValueError) as raised:
            extract(run, pair.videos, Store(str(tmp_path)))
        cause = str(getattr(raised.value, "cause", raised.value))
        assert "\n" not in cause and ("hf download no/where" in cause or "describes a wavlm model" in cause)
    assert not Store(str(tmp_path)).keys("behavior")


class Broken:
    """An actor that cannot start."""

    def __init__(self) -> None:
        raise WeightsError("made up: what it is")

    def work(self) -> None:
        """Never reached."""


def test_what_keeps_an_actor_from_starting_is_said_without_its_traceback(local_ray: str):
    actor = ray.remote(Broken).remote()
    with pytest.raises(RayError) as raised:
        ray.get(actor.work.remote())
    assert "Traceback" in str(raised.value) or "\n" in str(raised.value)
    assert job._cause(raised.value) == "made up: what it is"


@pytest.mark.parametrize("states", ["dense", "vision"])
def test_other_states_make_another_model_under_another_title(trained: Micro, states: str, tmp_path: Path):
    run = replace(trained.run, name=states, systems=("behavior",), mamba=replace(trained.run.mamba, states=states))
    store, out, runs = Store(trained.places.store), str(tmp_path / "out"), str(tmp_path / "runs")
    videos = probe_videos(find(trained.places.videos), store, {})
    refs = assemble(run, videos, affwild2.read_splits(trained.places.labels), store)
    [model] = train(run, refs, store, runs)
    assert load_model(model.uri).title == {"dense": "behavior (dense)", "vision": "behavior (vision only)"}[states]
    new = extract(run, trained.places.new_videos, store).videos
    [outcome] = predict(run, new, load_models(run, runs), store, out)
    assert (outcome["status"], outcome["people"]) == ("ok", 1)  # without faces whoever it is is the main person
    table = pq.read_table(Path(out) / "video03.parquet")
    assert table["behavior_valence"].null_count == 0 and table["valid"].to_pylist() == [True] * 50
    assert score_predictions(out, trained.places.truth, Labels()).answers
