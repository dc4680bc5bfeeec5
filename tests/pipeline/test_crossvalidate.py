"""Training without a development set."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _pytest.capture import CaptureFixture

from affect.console.forecast import forecast_training
from affect.corpus import affwild2
from affect.corpus.affwild2 import LabelError
from affect.corpus.labels import annotated_tracks
from affect.corpus.videos import find
from affect.pipeline import forecast
from affect.pipeline.assemble import assemble
from affect.pipeline.crossvalidate import cross_validate
from affect.pipeline.probe import probe_videos
from affect.settings.labels import Labels
from affect.settings.run import Run
from affect.storage.store import Store
from affect.tracks.tables import TrackRef
from affect.trained.models import load_model
from affect.trained.runs import read_run
from tests.conftest import Micro

pytestmark = pytest.mark.usefixtures("pools_here")


@pytest.fixture
def labels(micro: Micro, tmp_path: Path) -> str:
    """All three people's annotations in one folder."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for place in (f"{micro.places.labels}/Train_Set", f"{micro.places.labels}/Validation_Set", micro.places.truth):
        for path in Path(place).glob("*.txt"):
            shutil.copy(path, folder)
    return str(folder)


def everyone(micro: Micro) -> list[str]:
    """Places of all three videos."""
    return [micro.places.videos, micro.places.new_videos]


@pytest.fixture
def store(trained: Micro, predicted: str, tmp_path: Path) -> Store:
    """All three people's features, in a store of its own: what models say of tracks would be others' too."""
    shutil.copytree(trained.places.store, tmp_path / "store")
    return Store(str(tmp_path / "store"))


@pytest.fixture
def refs(trained: Micro, labels: str, store: Store) -> list[TrackRef]:
    videos = probe_videos(find(everyone(trained)), store, {})
    return assemble(face_of(trained), videos, affwild2.read_training(labels), store)


def face_of(micro: Micro) -> Run:
    """A run of the face alone."""
    return replace(micro.run, systems=("face",))


def test_every_track_is_judged_once_by_models_that_neither_learned_from_it_nor_were_selected_on_it(
    trained: Micro, refs: list[TrackRef], labels: str, store: Store, tmp_path: Path, capsys: CaptureFixture[str]
):
    run, runs = face_of(trained), str(tmp_path / "runs")
    golds = affwild2.read_training(labels)["train"]
    [answers] = cross_validate(run, refs, golds, store, runs, 3)
    said = capsys.readouterr().out
    assert answers.tracks.keys() == golds.keys() and all(np.isfinite(of).all() for of in answers.tracks.values())
    assert "of 3 folds, each by models that never saw its videos" in said and "fold 3 of 3" in said
    judged = []
    for fold in (1, 2, 3):
        model = load_model(f"{runs}/folds/face/{read_run(f'{runs}/folds', f'demo-{fold}of3')['face']}")
        known = {*model.learned_from, *model.selected_on}
        assert len(model.learned_from) == len(model.selected_on) == 1 and len(known) == 2
        judged += [ref.name for ref in refs if ref.source not in known]
    assert sorted(judged) == sorted(golds)
    kept = load_model(f"{runs}/face/{read_run(runs, 'demo')['face']}")
    assert len(kept.learned_from) == 2 and len(kept.selected_on) == 1
    again = cross_validate(run, refs, golds, store, runs, 3)[0]
    assert all(np.array_equal(again.tracks[name], of) for name, of in answers.tracks.items())
    assert capsys.readouterr().out.count("there already") == 4


@pytest.mark.parametrize(("folds", "said"), [(2, "give 3 to 3"), (4, "there are 3 videos")])
def test_folds_that_cannot_be_are_refused(
    trained: Micro, refs: list[TrackRef], labels: str, store: Store, tmp_path: Path, folds: int, said: str
):
    golds = affwild2.read_training(labels)["train"]
    with pytest.raises(ValueError, match=said):
        cross_validate(face_of(trained), refs, golds, store, str(tmp_path), folds)


def test_labels_without_a_development_set_say_what_can_be_done(
    trained: Micro, labels: str, store: Store, tmp_path: Path
):
    with pytest.raises(LabelError, match=r"no Validation_Set in it.*--cross-validate 5"):
        affwild2.read_splits(labels)
    assert sorted(annotated_tracks(labels, Labels())) == sorted(affwild2.read_training(labels)["train"])
    run = face_of(trained)
    found, probed = forecast.extraction(run, everyone(trained), store, [])
    golds = affwild2.read_training(labels)
    said = forecast_training(found, run, probed, golds, str(tmp_path), 0, 3)
    assert any("3 training tracks, 150 frames; 3 folds" in line for line in said.lines)
    assert any("face: 4 x at most 2 epochs" in line for line in said.lines)
