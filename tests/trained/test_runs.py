"""What a training was made with, noted beside its models."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from affect.settings import recipes
from affect.trained.models import load_models
from affect.trained.runs import note_run, read_run, trained_run
from tests.conftest import Micro


def test_a_training_is_rebuilt_from_its_note_wherever_it_is_read(
    trained: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Settings, weights and store; actors and workers are those of the machine that reads it."""
    changed = replace(
        trained.run,
        tracking=replace(trained.run.tracking, min_person_s=0.4),
        face=replace(trained.run.face, num_gpus=1.0),
        workers=replace(trained.run.workers, num_workers=7),
    )
    shutil.copytree(trained.places.runs, tmp_path / "runs")
    known = read_run(trained.places.runs, "demo")
    note_run(changed, str(tmp_path / "runs"), "demo", "somewhere", known)
    monkeypatch.chdir(tmp_path)
    found = trained_run(str(tmp_path / "runs"), "demo", recipes.demo())
    assert found is not None and found.store == "somewhere"
    assert found.run.tracking.min_person_s == 0.4 and found.run.face.weights == trained.run.face.weights
    assert found.run.face.num_gpus == 0 and found.run.workers.num_workers == 0
    assert found.run.wavlm.fit == trained.run.wavlm.fit and found.run.grid == trained.run.grid
    as_it_was = trained_run(str(tmp_path / "runs"), "demo", None)
    assert as_it_was is not None and as_it_was.run == replace(changed, systems=as_it_was.run.systems)
    assert load_models(found.run, str(tmp_path / "runs")).keys() == known.keys()


def test_weights_are_noted_so_that_the_working_directory_does_not_matter(
    trained: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(Path(trained.run.face.weights).parent)
    relative = replace(trained.run, face=replace(trained.run.face, weights="grada"))
    note_run(relative, str(tmp_path), "x", "store", {})
    found = trained_run(str(tmp_path), "x", None)
    assert found is not None and found.run.face.weights == trained.run.face.weights
    assert found.run.face.landmarker == trained.run.face.landmarker == "face_landmarker.task"
    hub = replace(trained.run, behavior=replace(trained.run.behavior, weights="Qwen/Qwen3-VL-4B-Instruct"))
    note_run(hub, str(tmp_path), "y", "store", {})
    found = trained_run(str(tmp_path), "y", None)
    assert found is not None and found.run.behavior.weights == "Qwen/Qwen3-VL-4B-Instruct"


def test_a_training_that_was_killed_between_two_models_still_lacks_the_second(trained: Micro, tmp_path: Path):
    known = read_run(trained.places.runs, "demo")
    shutil.copytree(f"{trained.places.runs}/face", tmp_path / "face")
    note_run(trained.run, str(tmp_path), "demo", "store", {"face": known["face"]})
    found = trained_run(str(tmp_path), "demo", trained.run)
    assert found is not None
    with pytest.raises(ValueError, match="has no trained behavior model"):
        load_models(found.run, str(tmp_path))


def test_notes_of_an_earlier_version_say_nothing_of_settings(tmp_path: Path):
    (tmp_path / "demo.json").write_text('{"systems": {"face": "0123456789abcdef"}}')
    assert trained_run(str(tmp_path), "demo", None) is None
    (tmp_path / "demo.json").write_text('{"systems": {}, "store": "x", "settings": {"name": "demo", "new": 1}}')
    with pytest.raises(ValueError, match="describes no training of this version"):
        trained_run(str(tmp_path), "demo", None)
