"""Evidence that is spoilt, missing or too much: every answer is finite and in [-1, 1] or null, and says why."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from affect.corpus.videos import find
from affect.modalities import MODALITIES, SYSTEMS
from affect.pipeline.predict_actor import PredictActor
from affect.pipeline.probe import probe_videos
from affect.plan.addresses import feature_addresses
from affect.plan.clips import Video, keys_of
from affect.report.series import person_data
from affect.storage import schema
from affect.storage.extracted import Extracted
from affect.storage.store import Store, encode, read_table
from affect.trained.models import load_models
from affect.trained.predictions import predictions_schema, read_outcomes, read_predictions
from tests.conftest import Micro

pytestmark = pytest.mark.usefixtures("pools_here")

UNSEEN_FACE, UNSEEN_BEHAVIOR = (f"{m}: {MODALITIES[m].no_evidence}" for m in ("face", "behavior"))
Change = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Spoilt:
    """The held-out person's features in a store of their own, to be changed."""

    micro: Micro
    store: Store
    video: Video
    out: Path

    def change(self, modality: str, change: Change) -> None:
        """Change a modality's rows in every clip."""
        run = self.micro.run
        for key in keys_of(self.video, run, feature_addresses(run), modality):
            found = self.store.get(key)
            self.store.put(key, Extracted(change(found.table), found.status, found.reason))

    def predictor(self, **settings: Any) -> PredictActor:
        models = load_models(self.micro.run, self.micro.places.runs)
        wanted = {"people": "all", "hints": {}} | settings
        run = self.micro.run
        given = (run, feature_addresses(run), models, self.store, str(self.out))
        return PredictActor(*given, **wanted)

    def predict(self, predictor: PredictActor, *tracks: str) -> tuple[dict[str, Any], pa.Table]:
        """How it ended, and the table, of which everything holds that always holds.

        Tracks mean the main person; without any it is who is seen.
        """
        row = of(predictor, self.video, *tracks)
        table = read_table(f"{self.out}/{self.video.stem}.parquet")
        assert table.schema.remove_metadata().equals(predictions_schema())
        for name in ("valence", "arousal", *(f"{s}_{d}" for s in SYSTEMS for d in ("valence", "arousal"))):
            values = table[name].drop_null().to_numpy()
            assert np.isfinite(values).all() and (np.abs(values) <= 1).all(), name
        for name in ("valence_spread", "arousal_spread", *(f"{m}_trust" for m in MODALITIES)):
            assert np.isfinite(table[name].drop_null().to_numpy()).all(), name
        whole = np.ones(table.num_rows, dtype=bool)
        for modality in MODALITIES:
            valid = table[f"{modality}_valid"].to_numpy(zero_copy_only=False)
            assert [not reason for reason in table[f"{modality}_reason"].to_pylist()] == valid.tolist()
            whole &= valid
        whole &= table["valid"].to_numpy(zero_copy_only=False)
        assert [not reason for reason in table["reason"].to_pylist()] == whole.tolist()
        boxes = np.stack([table[f"face_{side}"].to_numpy(zero_copy_only=False) for side in schema.SIDES], axis=1)
        found = table["face_valid"].to_numpy(zero_copy_only=False)
        assert (np.isfinite(boxes) == found[:, None]).all()
        assert (boxes[found, :2] < boxes[found, 2:]).all()
        return row, table


def of(predictor: PredictActor, video: Video, *tracks: str) -> dict[str, Any]:
    """How a video ended."""
    asked = json.dumps([[track, "main"] for track in tracks] or None)
    return {name: values[0] for name, values in predictor({"video": [video], "tracks": [asked]}).items()}


@pytest.fixture
def spoilt(predicted: str, trained: Micro, tmp_path: Path) -> Spoilt:
    store = Store(str(tmp_path / "store"))
    [video] = probe_videos(find(trained.places.new_videos), Store(trained.places.store), {})
    where = feature_addresses(trained.run)
    keys = [video.probe_key, *(key for m in where for key in keys_of(video, trained.run, where, m))]
    for key in keys:
        (tmp_path / "store" / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Store(trained.places.store).uri_of(key), tmp_path / "store" / key)
    return Spoilt(trained, store, video, tmp_path / "out")


def put_in(name: str, value: float, rows: slice) -> Change:
    """Put a number into a column of some rows, into one place of each."""

    def change(table: pa.Table) -> pa.Table:
        found = table.to_pylist()
        for row in found[rows]:
            inner = row[name]
            if isinstance(inner, list):
                while isinstance(inner[0], list):
                    inner = inner[0]
                inner[len(inner) // 2] = value
            else:
                row[name] = value
        return pa.Table.from_pylist(found, schema=table.schema)

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("modality", "name"),
    [("face", "embedding"), ("face", "valence"), ("face", "box"), ("behavior", "multimodal"), ("behavior", "patches")],
)
def test_a_number_that_is_not_finite_costs_its_own_row_and_is_counted(
    modality: str, name: str, value: float, spoilt: Spoilt
):
    clips = 3 if modality == "face" else 2  # no segment starts in the last one
    spoilt.change(modality, put_in(name, value, slice(0, 1)))
    row, table = spoilt.predict(spoilt.predictor())
    assert row["status"] == "degraded" and f"{modality}: {clips} rows are not finite numbers, left out" in row["reason"]
    assert table["valence"].null_count == 0 and table["valid"].to_pylist() == [True] * 50
    if modality == "face":
        assert table["face_valid"].to_pylist() == [frame not in (0, 20, 40) for frame in range(50)]


def test_without_one_modality_the_others_answer_and_without_any_nobody_does(spoilt: Spoilt):
    """A name asks for the person, since nobody is seen."""
    spoilt.change("face", put_in("embedding", np.inf, slice(None)))
    row, table = spoilt.predict(spoilt.predictor(), spoilt.video.stem)
    assert row["status"] == "degraded" and " rows are not finite" in row["reason"]
    assert table["valence"].null_count == 0 and table["face_valence"].null_count == 50
    assert not any(table["face_valid"].to_pylist())
    spoilt.change("behavior", put_in("vision", np.nan, slice(None)))
    spoilt.change("audio", lambda audio: audio.slice(0, 0))
    row, table = spoilt.predict(spoilt.predictor(), spoilt.video.stem)
    assert row["status"] == "degraded"
    assert table["valence"].null_count == table["arousal"].null_count == table["dcmmoe_valence"].null_count == 50
    assert set(table["reason"].to_pylist()) == {f"{UNSEEN_FACE}; {UNSEEN_BEHAVIOR}; audio: no sound"}


def test_a_voice_alone_is_evidence_of_dcmmoe_and_none_of_raav(spoilt: Spoilt):
    """RAAV says a constant where neither face nor behaviour is seen, whatever it hears."""
    spoilt.change("face", put_in("embedding", np.inf, slice(None)))
    spoilt.change("behavior", put_in("vision", np.nan, slice(None)))
    run = spoilt.micro.run
    heard = replace(run.wavlm, speaking=replace(run.wavlm.speaking, min_open_s=0.0, min_coverage=0.0))
    listens = replace(spoilt, micro=replace(spoilt.micro, run=replace(run, wavlm=heard)))
    predictor = spoilt.predictor()
    predictor._run = listens.micro.run  # the models are those of the published rule
    _, table = spoilt.predict(predictor, spoilt.video.stem)
    assert all(table["audio_valid"].to_pylist()) and table["dcmmoe_valence"].null_count == 0
    assert table["raav_valence"].null_count == table["valence"].null_count == 50 and not any(table["valid"].to_pylist())
    assert set(table["reason"].to_pylist()) == {f"{UNSEEN_FACE}; {UNSEEN_BEHAVIOR}"}


SOUNDS: dict[str, Callable[[int], np.ndarray]] = {
    "digital silence": lambda num: np.zeros(num),
    "a constant": lambda num: np.full(num, 700.0),
    "a muted microphone": lambda num: np.random.default_rng(0).integers(-2, 3, num),
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_silence_is_as_no_sound_track_and_the_rows_tell_them_apart(spoilt: Spoilt, sound: str):
    """Of a mouth that moves all the time."""
    run = spoilt.micro.run
    talking = replace(run.wavlm, speaking=replace(run.wavlm.speaking, min_open_s=0.0, min_coverage=0.0))
    predictor = spoilt.predictor()
    predictor._run = replace(run, wavlm=talking)  # the models are those of the published rule
    _, heard = spoilt.predict(predictor)
    assert all(heard["audio_valid"].to_pylist())

    def muted(audio: pa.Table) -> pa.Table:
        waves = [SOUNDS[sound](len(wave)).astype(np.int16) for wave in audio["waveform"].to_pylist()]
        place = audio.schema.get_field_index("waveform")
        return audio.set_column(place, "waveform", pa.array(waves)).cast(audio.schema)

    spoilt.change("audio", muted)
    (spoilt.out / f"{spoilt.video.stem}.parquet").unlink()  # of objects that ended alike
    _, silent = spoilt.predict(predictor)
    assert set(silent["audio_reason"].to_pylist()) == {"silence"}
    assert all(reason.endswith("audio: silence") for reason in silent["reason"].to_pylist())
    spoilt.change("audio", lambda audio: audio.slice(0, 0))
    _, without = spoilt.predict(predictor)
    assert set(without["audio_reason"].to_pylist()) == {"no sound"}
    differs = {"reason", "audio_reason"}
    columns = [name for name in predictions_schema().names if name not in differs]
    assert silent.select(columns).equals(without.select(columns)) and not silent["valence"].equals(heard["valence"])
    assert silent["audio_valence"].null_count == silent.num_rows


def test_predictions_of_an_earlier_version_are_read_with_nothing_in_the_columns_that_they_lack(
    predicted: str, tmp_path: Path
):
    [name] = [path.name for path in Path(predicted).glob("video03*.parquet")]
    whole = read_predictions(f"{predicted}/{name}")
    new = [*(f"{m}_reason" for m in MODALITIES), *(f"face_{side}" for side in schema.SIDES)]
    (tmp_path / name).write_bytes(encode(whole.drop_columns(new)))
    old = read_predictions(str(tmp_path / name))
    assert old.schema.names == whole.schema.names and all(old[field].null_count == len(old) for field in new)
    seen = person_data(old, None)["seen"]
    assert {reason for of in seen.values() for reason in of["missing"]} <= {"no evidence"} and len(seen) == 3


def test_a_predictor_needs_neither_the_weights_that_made_features_nor_those_that_training_began_with(
    spoilt: Spoilt, monkeypatch: pytest.MonkeyPatch
):
    """It reads features, wherever it runs: addresses are handed down, and models are whole."""
    models, where = load_models(spoilt.micro.run, spoilt.micro.places.runs), feature_addresses(spoilt.micro.run)
    for name in ("weights.identity", "weights.checkpoint", "weights.folder", "weights.file"):
        monkeypatch.setattr(f"affect.{name}", lambda *_: pytest.fail("weights are read"))
    given = (where, models, spoilt.store, str(spoilt.out), "all", {})
    assert spoilt.predict(PredictActor(spoilt.micro.run, *given))[0]["status"] == "ok"


def test_what_else_is_to_be_known_of_a_clip_makes_no_video_degraded(spoilt: Spoilt):
    [key, *_] = keys_of(spoilt.video, spoilt.micro.run, feature_addresses(spoilt.micro.run), "behavior")
    spoilt.store.put(key, spoilt.store.get(key)._replace(reason="computed one at a time"))
    row, _ = spoilt.predict(spoilt.predictor())
    assert (row["status"], row["reason"]) == ("ok", "")


def test_a_damaged_object_costs_its_own_video(spoilt: Spoilt):
    key = keys_of(spoilt.video, spoilt.micro.run, feature_addresses(spoilt.micro.run), "face")[1]
    path = Path(spoilt.store.uri_of(key))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:]):  # no footer; other content
        path.write_bytes(content)
        row = of(spoilt.predictor(), spoilt.video)
        assert row["status"] == "failed" and f"{key}: damaged" in row["reason"]


def test_a_model_whose_answers_are_not_finite_has_none(spoilt: Spoilt):
    predictor = spoilt.predictor()
    last = predictor._networks["raav"]
    with torch.no_grad():
        next(iter(last.parameters())).fill_(torch.nan)
    row, table = spoilt.predict(predictor)
    assert row["status"] == "degraded" and "50 frames: the model's answer is not a finite number" in row["reason"]
    assert table["valence"].null_count == table["raav_valence"].null_count == 50 and not any(table["valid"].to_pylist())
    assert table["dcmmoe_valence"].null_count == table["face_valence"].null_count == 0


def test_fifty_faces_are_fifty_people(spoilt: Spoilt):
    def crowd(table: pa.Table) -> pa.Table:
        rows = []
        for row in table.to_pylist():
            for face in range(50):
                left, top = (face % 10) / 10, (face // 10) / 5
                rows.append(row | {"face": face, "box": [left + 0.01, top + 0.01, left + 0.09, top + 0.19]})
        return pa.Table.from_pylist(rows, schema=table.schema)

    spoilt.change("face", crowd)
    row, table = spoilt.predict(spoilt.predictor())
    assert row["people"] == 50 and table.num_rows == 50 * 50 and table["valence"].null_count == 0
    assert len(set(table["track"].to_pylist())) == 50
    alone = replace(spoilt, out=spoilt.out / "main")
    row, table = alone.predict(alone.predictor(people="main"))
    assert row["people"] == 1 and table.num_rows == 50


def test_a_table_that_is_none_of_ours_is_made_again(spoilt: Spoilt):
    predictor = spoilt.predictor()
    spoilt.predict(predictor)
    path = spoilt.out / f"{spoilt.video.stem}.parquet"
    whole = path.read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    for content in (b"", whole[: -8 - size] + bytes(size) + whole[-8:], encode(pa.table({"x": [1]}))):
        path.write_bytes(content)
        spoilt.predict(predictor)
        assert path.read_bytes() == whole
    assert of(predictor, spoilt.video)["new_s"] == 0.0  # known now


def test_a_name_that_is_too_long_for_a_table_costs_its_own_video(spoilt: Spoilt):
    long = replace(spoilt.video, stem="x" * 251)
    row = of(spoilt.predictor(), long)
    assert row["status"] == "failed" and "more than 200 bytes" in row["reason"]


@pytest.mark.parametrize(
    "row",
    ["../../holiday,failed,0,0,0,x", "a,failed,99999999999999999999,0,0,x", "a,failed,one,0,0,x", "a", "x" * 200_000],
)
def test_outcomes_that_are_none_of_ours_are_refused(row: str, tmp_path: Path):
    (tmp_path / "videos.csv").write_text("video,status,people,frames,duration_s,reason\n" + row)
    with pytest.raises(ValueError, match=r"videos\.csv"):
        read_outcomes(str(tmp_path))
