"""Fine-tuning WavLM on the micro corpus: from waveforms, from stored states, in this process and by Ray Data."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from _pytest.capture import CaptureFixture
from fsspec.implementations.memory import MemoryFile

from affect.audio.part import stored_waveforms
from affect.audio.task import AudioTask
from affect.audio.wavlm import WavlmRegressor, load_backbone
from affect.corpus.track import FULL_SCALE, Track
from affect.corpus.videos import find
from affect.learning import batches
from affect.learning.checkpoint import trainable_state
from affect.learning.fit import evaluate, fit
from affect.modalities import MODALITIES
from affect.pipeline.cluster import WORKERS_ADVICE, check_room, shares_of
from affect.pipeline.probe import probe_videos
from affect.pipeline.train import train
from affect.pipeline.trunk import store_trunk
from affect.pipeline.trunk_actor import LARGEST, TrunkActor
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video
from affect.settings.models import Augment, Speaking
from affect.settings.run import Run
from affect.settings.training import Workers
from affect.storage import schema
from affect.storage.extracted import Extracted
from affect.storage.rows import Rows
from affect.storage.store import Store
from affect.tracks import assemble_track as assembling
from affect.tracks.assembly import make_track
from affect.tracks.features import Features, faces_of, load_features
from affect.tracks.tables import TrackRef, load_track
from affect.trained.embedded import embedded_key
from affect.trained.models import Model
from affect.trained.trunk import _states, with_trunk
from tests.conftest import Micro, pools
from tests.pipeline.audio_micro import assembled_tracks, audio_run

pytestmark = pytest.mark.usefixtures("pools_here")

CPU = torch.device("cpu")
SILENT = Augment(gain=0.0, noise=0.0, band_limit=0.0, reverb=0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("heard") / "store"))


@pytest.fixture(scope="module")
def refs(micro: Micro, store: Store) -> list[TrackRef]:
    return assembled_tracks(audio_run(micro.run), micro.places, store)


def trained_model(run: Run, refs: list[TrackRef], store: Store, folder: Path) -> Model:
    [model] = train(run, refs, store, str(folder))
    return model


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    return model.network(CPU).state_dict()


def tracks(refs: list[TrackRef], store: Store, split: str) -> list[Track]:
    return [load_track(store, ref, ("audio",)) for ref in refs if ref.split == split]


@pytest.fixture(scope="module")
def tuned(micro: Micro, refs: list[TrackRef], store: Store, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained in this process, from waveforms."""
    run = audio_run(micro.run, max_epochs=4)
    return trained_model(run, refs, store, tmp_path_factory.mktemp("tuned") / "runs")


def test_pooling_head_and_top_layer_move_and_the_frozen_layers_do_not(micro: Micro, tuned: Model):
    torch.manual_seed(audio_run(micro.run).wavlm.fit.seed)
    before = WavlmRegressor(audio_run(micro.run).wavlm, load_backbone(micro.run.wavlm.weights, "main"))
    after = weights_of(tuned)
    trained = set(trainable_state(before))
    for name, value in before.state_dict().items():
        assert torch.equal(after[name], value) == (name not in trained), name
    assert {name for name in trained if name.startswith("pooling.")} == {
        "pooling.score.0.weight",
        "pooling.score.0.bias",
        "pooling.score.3.weight",
    }


def test_the_saved_weights_are_the_moving_average_that_was_validated(
    micro: Micro, tuned: Model, refs: list[TrackRef], store: Store
):
    development = tracks(refs, store, "development")
    score = evaluate(tuned.task(), tuned.network(CPU), development, CPU)
    assert score[2] == tuned.best["mean"]
    run = audio_run(micro.run, max_epochs=int(tuned.best["epoch"]))
    plain = replace(run.wavlm, fit=replace(run.wavlm.fit, ema_decay=None))
    samples = tuned.segment_samples
    without = fit(AudioTask(plain, samples), tracks(refs, store, "train"), development, device=CPU)
    assert not torch.equal(without.model.state_dict()["predict.1.weight"], weights_of(tuned)["predict.1.weight"])


def test_every_frame_and_block_of_a_track_is_embedded_with_the_filters_verdict(
    tuned: Model, refs: list[TrackRef], store: Store
):
    for ref in refs:
        track = load_track(store, ref)
        frames = store.get(embedded_key(tuned.address, "audio", ref)).table
        blocks = store.get(embedded_key(tuned.address, "audio", ref, "blocks")).table
        assert frames.num_rows == track.num_frames and frames["valid"].to_pylist() == [True] * track.num_frames
        assert blocks.num_rows == 4 * len(track.parts["audio"].kept)
        lasts = [
            bool(edge < end)
            for edge, (_, end) in zip(
                track.segments.block_edges[:, :4].reshape(-1), np.repeat(track.segments.ranges, 4, axis=0), strict=True
            )
        ]
        assert blocks["valid"].to_pylist() == lasts


@pytest.mark.slow
def test_a_ray_train_worker_that_ray_data_feeds_learns_what_this_process_learns(
    micro: Micro, tuned: Model, refs: list[TrackRef], store: Store, tmp_path: Path
):
    run = audio_run(micro.run, max_epochs=4)
    run = replace(run, workers=Workers(num_workers=1, num_cpus=0.5, loader_cpus=0.5))
    streamed = trained_model(run, refs, store, tmp_path / "runs")
    assert streamed.address == tuned.address and streamed.best == tuned.best
    for name, value in weights_of(tuned).items():
        assert torch.equal(weights_of(streamed)[name], value), name


@pytest.mark.slow
def test_two_workers_learn_what_one_process_learns_where_no_noise_is_drawn(
    micro: Micro, refs: list[TrackRef], store: Store, tmp_path: Path
):
    quiet = tmp_path / "wavlm"
    backbone = load_backbone(micro.run.wavlm.weights, "main")
    for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(backbone.config, name, 0.0)
    backbone.config.apply_spec_augment = False
    backbone.save_pretrained(quiet)
    run = audio_run(micro.run, max_epochs=4, batch_size=4)
    wavlm = replace(run.wavlm, weights=str(quiet), dropout=0.0, augment=SILENT)
    histories = []
    for name, workers in (("one", Workers()), ("two", Workers(num_workers=2, num_cpus=0.5, loader_cpus=0.5))):
        model = trained_model(replace(run, wavlm=wavlm, workers=workers), refs, store, tmp_path / name)
        rows = json.loads((Path(model.uri) / "history.json").read_text())
        histories.append([(row["loss"], row["mean"]) for row in rows])
    assert np.allclose(*histories, atol=1e-4)


def test_stored_states_are_those_of_the_frozen_layers_and_computed_once(
    micro: Micro, refs: list[TrackRef], store: Store, tmp_path: Path, capsys: CaptureFixture[str]
):
    run = audio_run(micro.run, max_epochs=2)
    run = replace(run, wavlm=replace(run.wavlm, cached=True))
    with pools(in_process=False):
        mark = store_trunk(run, refs, store)
    model = WavlmRegressor(run.wavlm, load_backbone(run.wavlm.weights, "main")).eval()
    for ref in refs:
        track = with_trunk(load_track(store, ref, ("audio",)), ref, store, mark)
        assert track.parts["audio"].frozen is not None and len(track.parts["audio"].frozen) == len(
            track.parts["audio"].kept
        )
        for segment in (0, len(track.parts["audio"].frozen) - 1):
            wave = track.parts["audio"].waveforms[segment]
            x = torch.zeros(1, 64_000)
            x[0, : len(wave)] = torch.from_numpy(wave / FULL_SCALE)
            with torch.inference_mode():
                expected = model.trunk(x, torch.tensor([len(wave)]))[0]
            assert track.parts["audio"].frozen[segment].num_samples == len(wave)
            torch.testing.assert_close(
                torch.tensor(track.parts["audio"].frozen[segment].states).float(), expected, atol=1e-3, rtol=1e-3
            )
    capsys.readouterr()
    first = trained_model(run, refs, store, tmp_path / "one")
    assert "trunk" not in capsys.readouterr().out.replace("cached trunk", "")
    assert first.title == "audio (cached trunk)"
    # The model is whole: it hears waveforms as any other, and says of them what it says of the states.
    network, task = first.network(CPU), first.task()
    for ref in refs:
        track = load_track(store, ref, ("audio",))
        said, again = (
            batches.run(task, network, t, CPU).predictions for t in (track, with_trunk(track, ref, store, mark))
        )
        assert np.allclose(said, again, atol=2e-3)


@pytest.mark.slow
def test_a_ray_train_worker_learns_from_stored_states_what_this_process_learns(
    micro: Micro, refs: list[TrackRef], store: Store, tmp_path: Path
):
    run = audio_run(micro.run, max_epochs=2)
    run = replace(run, wavlm=replace(run.wavlm, cached=True))
    first = trained_model(run, refs, store, tmp_path / "one")
    workers = Workers(num_workers=1, num_cpus=0.5, loader_cpus=0.5)
    streamed = trained_model(replace(run, workers=workers), refs, store, tmp_path / "two")
    for name, value in weights_of(first).items():
        assert torch.equal(weights_of(streamed)[name], value), name


def test_other_frozen_layers_have_other_states(micro: Micro):
    run = audio_run(micro.run)
    run = replace(run, wavlm=replace(run.wavlm, cached=True))
    others = [
        replace(run.wavlm, trained_layers=2),
        replace(run.wavlm, fit=replace(run.wavlm.fit, precision="bfloat16")),
    ]
    marks = {MODALITIES["audio"].trunk_address(replace(run, wavlm=wavlm)) for wavlm in (run.wavlm, *others)}
    assert len(marks) == 3
    same = replace(run.wavlm, dropout=0.5, fit=replace(run.wavlm.fit, max_epochs=9))
    assert MODALITIES["audio"].trunk_address(replace(run, wavlm=same)) in marks


def test_states_that_are_not_finite_are_refused_and_too_large_ones_are_cut(
    micro: Micro, refs: list[TrackRef], tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    actor = TrunkActor(audio_run(micro.run).wavlm, 64_000, store)
    row = {"key": ["trunk/x/a.rows.arrow"], "source": [refs[0].keys["waveforms"]]}
    for value, clipped in ((float("nan"), None), (float("inf"), None), (1e6, 5 * 4)):
        states = torch.zeros(64, 199, 4)
        states[:, 0] = value
        monkeypatch.setattr(actor, "_states", lambda waves, states=states: states[: len(waves)])
        if clipped is None:
            with pytest.raises(ValueError, match="is not finite"):
                actor(row)
        else:
            assert actor(row)["clipped"].tolist() == [clipped]
            assert Rows(store.uri_of(row["key"][0]), _states)[1].states.max() == LARGEST


def test_a_segment_without_sound_has_no_states(micro: Micro, tmp_path: Path):
    store = Store(str(tmp_path))
    waves = [np.array([5, -5] * 32_000, dtype=np.int16), np.empty(0, dtype=np.int16)]
    store.put(
        "waveforms/x.rows.arrow",
        Extracted(pa.table({"segment": [0, 1], "waveform": waves}, schema=schema.TRACK["waveforms"])),
    )
    actor = TrunkActor(audio_run(micro.run).wavlm, 64_000, store)
    actor({"key": ["trunk/x/x.rows.arrow"], "source": ["waveforms/x.rows.arrow"]})
    heard = Rows(store.uri_of("trunk/x/x.rows.arrow"), _states)
    assert (heard[0].num_samples, heard[0].states.shape) == (64_000, (199, 32))
    assert (heard[1].num_samples, heard[1].states.shape) == (0, (0, 0))


def test_waveforms_are_heard_in_their_own_scale(micro: Micro, refs: list[TrackRef], store: Store):
    track = load_track(store, refs[0], ("audio",))
    example = AudioTask(audio_run(micro.run).wavlm, 64_000).example(track, (4, 8))
    wave = track.parts["audio"].waveforms[1]
    assert np.allclose(example.whole["x"][: len(wave)], wave / 32_768.0) and example.whole["num_samples"] == len(wave)


def test_without_an_encoder_faces_are_the_same_but_for_what_it_says(micro: Micro, extracted: Micro, store: Store):
    """And a run that reads embeddings is refused."""
    run, whole = audio_run(micro.run), Store(extracted.places.store)
    rows = {}
    for name, own, where in (("mouths", run, store), ("whole", extracted.run, whole)):
        video = probe_videos(find(micro.places.videos), where, {})[0]
        rows[name] = load_features(video, own, feature_addresses(own), where).tables["face"]
    said = ["embedding", "valence", "arousal", "expression"]
    assert rows["mouths"].drop_columns(said).equals(rows["whole"].drop_columns(said)) and rows["mouths"].num_rows >= 50
    assert all(rows["mouths"][name].null_count == rows["mouths"].num_rows for name in said[1:])
    assert {len(value) for value in rows["mouths"]["embedding"].to_pylist()} == {0}
    with pytest.raises(ValueError, match=r"system face needs face\.weights"):
        replace(run, systems=("face", "audio"))


def two_people(micro: Micro, store: Store) -> tuple[Video, Features]:
    """The micro corpus' person, and a second one at the same place whose mouth is ten times as open at every frame."""
    run = audio_run(micro.run)
    video = probe_videos(find(micro.places.videos), store, {})[0]
    found = load_features(video, run, feature_addresses(run), store)
    table, [person] = found.tables["face"], found.persons
    wide = pc.multiply(table["lip_area"], 10.0).cast(pa.float32())
    other = table.set_column(table.schema.get_field_index("lip_area"), table.schema.field("lip_area"), wide)
    both = pa.concat_tables([table, other])
    second = replace(person, rows=person.rows + table.num_rows)
    return video, replace(found, faces=faces_of(both), tables={**found.tables, "face": both}, persons=[person, second])


@pytest.mark.parametrize(("name", "said"), [("video01", True), ("video01_left", False), ("pointed", False)])
def test_a_bare_label_of_a_video_of_two_people_says_whom_it_means(
    micro: Micro,
    refs: list[TrackRef],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    said: bool,
):
    run, (video, features) = audio_run(micro.run), two_people(micro, store)
    monkeypatch.setattr(assembling, "load_features", lambda *_: features)
    row = {"name": name, "person": "left" if name.endswith("_left") else "main", "video": video.stem}
    hints = {"pointed": [(0, *features.faces.box[0].reshape(2, 2).mean(axis=0))]}
    todo = {name: (np.zeros((50, 2)), {"audio": "tracks/x/audio.arrow"})}
    given = {"videos": {video.stem: video}, "todo": todo, "hints": hints, "run": run}
    done = assembling.assemble_track(row, **given, where=feature_addresses(run), store=Store(str(tmp_path)))
    assert done["reason"] == "" and ("its video shows 2 people" in done["note"]) == said
    assert not said or "call it video01_left or video01_right, or give --hints" in done["note"]


def test_relative_to_the_video_a_louder_mouth_takes_the_voice_from_a_track(
    micro: Micro, refs: list[TrackRef], store: Store
):
    run, (video, two) = audio_run(micro.run), two_people(micro, store)
    kept = {}
    for relative_to in ("track", "video"):
        speaking = Speaking(relative_to=relative_to)
        rule = replace(run, wavlm=replace(run.wavlm, speaking=speaking))
        pair = [make_track("x", who, video, two, None, rule) for who in ("left", "right")]
        kept[relative_to] = [
            t.parts["audio"].kept for t in sorted(pair, key=lambda track: np.nanmean(track.parts["face"].lip_area))
        ]
    still, loud = kept["video"]
    assert all(own.any() for own in kept["track"]) and loud.any() and not still.any()


def test_a_filter_that_keeps_nothing_says_what_was_rejected_and_why(
    micro: Micro, store: Store, tmp_path: Path, capsys: CaptureFixture[str]
):
    run = audio_run(micro.run)
    run = replace(run, wavlm=replace(run.wavlm, speaking=Speaking(min_open_s=60.0)))
    refs = assembled_tracks(run, micro.places, store)
    with pytest.raises(ValueError, match="nothing to learn from") as caught:
        train(run, refs, store, str(tmp_path))
    said = str(caught.value)
    assert "1 tracks have 5 segments, 5 of them with sound" in said
    assert "open for less than 60 s in 5, so 0 are kept, of which 0 have 2 annotated blocks" in said
    assert "\n" not in said


def test_waveforms_are_a_videos_and_survive_another_rule(micro: Micro, refs: list[TrackRef], store: Store):
    run = audio_run(micro.run)
    other = assembled_tracks(
        replace(run, wavlm=replace(run.wavlm, speaking=Speaking(min_open_s=0.5))), micro.places, store
    )
    for ours, theirs in zip(refs, other, strict=True):
        assert ours.keys["waveforms"] == theirs.keys["waveforms"] and ours.keys["audio"] != theirs.keys["audio"]
    assert len(store.keys("waveforms")) == len(refs)


def test_workers_that_leave_no_cpu_to_read_with_are_refused(local_ray: str):
    with pytest.raises(
        ValueError, match=r"2 x --workers 1 CPUs, 1 x reading for --workers.*lower --workers\.num-workers"
    ):
        check_room(shares_of(Workers(num_workers=2), read=True), WORKERS_ADVICE)


def shout(row: pa.RecordBatch) -> str:
    return row["word"][0].as_py().upper()


@pytest.mark.parametrize("place", ["{}", "memory://{}"])
def test_one_row_is_read_without_the_others(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(place.format(tmp_path))
    words = ["short", "x" * 1_000_000, "last"]
    store.put("a.rows.arrow", Extracted(pa.table({"word": words})))
    read: list[int] = []
    plain = MemoryFile.read
    monkeypatch.setattr(MemoryFile, "read", lambda file, size=-1: read.append(size) or plain(file, size))
    rows = Rows(store.uri_of("a.rows.arrow"), shout)
    assert rows[0] == "SHORT" and rows[-1] == "LAST" and len(rows) == 3
    assert sum(read) < 10_000 and -1 not in read
    travelled = pickle.loads(pickle.dumps(rows))
    assert list(travelled) == [word.upper() for word in words]
    with pytest.raises(IndexError):
        rows[3]
    assert store.get("a.rows.arrow").table["word"].to_pylist() == words


def test_a_damaged_rows_object_is_named(tmp_path: Path):
    (tmp_path / "a.rows.arrow").write_bytes(b"ARROW1\0\0 and then nothing")
    with pytest.raises(ValueError, match=r"a\.rows\.arrow is damaged, delete it"):
        stored_waveforms(Store(str(tmp_path)), "a.rows.arrow")[0]


def test_a_rows_object_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        stored_waveforms(Store(str(tmp_path)), "waveforms/nothing.rows.arrow")[0]
