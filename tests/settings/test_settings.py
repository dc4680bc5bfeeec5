"""Settings: ranges are checked where they are made, addresses follow what changes numbers."""

import json
import re
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from affect.modalities import SYSTEMS
from affect.settings.address import address
from affect.settings.extraction import Audio, Behavior, Face, Grid, Pool, Stage
from affect.settings.models import Augment, Dcmmoe, FaceTransformer, Mamba, Raav, Speaking, Wavlm
from affect.settings.paths import from_plain
from affect.settings.run import Run
from affect.settings.training import Fit, Loss, Workers

NAN = float("nan")


def zeros(kind: type, *names: str) -> list[tuple[type, dict[str, Any]]]:
    """Each of these settings at zero, an integer or a float as the setting is."""
    defaults = {f.name: f.default for f in fields(kind)}
    return [(kind, {name: type(defaults[name])(0)}) for name in names]


WRONG: list[tuple[type, dict[str, Any]]] = [
    *[(Grid, {name: value}) for name in ("segment_s", "hop_s", "clip_s") for value in (0.0, -2.0, NAN)],
    (Grid, {"hop_s": 4.5}),
    (Grid, {"clip_s": 61.0}),
    *zeros(Pool, "num_cpus", "min_actors"),
    (Pool, {"num_gpus": -0.5}),
    (Pool, {"num_gpus": 1.5}),
    (Stage, {"limit_s": -1.0}),
    (Pool, {"min_actors": 3, "max_actors": 2}),
    *zeros(Face, "max_faces", "crop_px", "num_cpus"),
    *[(Face, {name: value}) for name in ("min_confidence", "box_growth") for value in (-0.1, 1.0, NAN)],
    *zeros(Behavior, "frames_per_second", "max_frames", "min_frame_pixels", "micro_batch", "min_actors"),
    (Behavior, {"min_frame_pixels": 800_000}),
    *zeros(Audio, "num_cpus"),
    (Speaking, {"history_rows": 0}),
    (Speaking, {"min_coverage": 1.1}),
    *zeros(Loss, "valence_weight", "arousal_weight", "min_points"),
    (Loss, {"error_weight": -0.1}),
    *zeros(Fit, "learning_rate", "batch_size", "max_epochs", "stop_patience"),
    (Fit, {"weight_decay": -0.1}),
    *zeros(FaceTransformer, "hidden", "layers", "heads", "window_frames", "window_hop_frames"),
    (FaceTransformer, {"dropout": 1.0}),
    (FaceTransformer, {"heads": 7}),
    *zeros(Mamba, "hidden", "layers", "state", "kernel", "head_hidden", "window_segments"),
    *[(Mamba, {name: -0.1}) for name in ("dropout", "head_dropout")],
    *[(Augment, {name: value}) for name in ("gain", "noise", "band_limit", "reverb") for value in (-0.1, 1.1)],
    *zeros(Wavlm, "blocks", "pooling_hidden", "hidden", "backbone_learning_rate"),
    *zeros(Dcmmoe, "hidden", "layers", "heads", "window_frames", "window_hop_frames"),
    (Dcmmoe, {"heads": 7}),
    (Dcmmoe, {"modalities": ("face",)}),
    (Dcmmoe, {"modalities": ("face", "face")}),
    *zeros(Raav, "hidden", "heads", "layers", "feedforward", "latents", "face_prior", "behavior_prior"),
    (Raav, {"smooth_valence_frames": 8}),
    (Raav, {"smooth_arousal_frames": -1}),
    (Workers, {"num_workers": -1}),
    (Workers, {"num_cpus": 0.0}),
]


@pytest.mark.parametrize(("kind", "settings"), WRONG, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_setting_out_of_range_is_an_error_that_names_it_and_its_value(kind: type, settings: dict[str, Any]):
    with pytest.raises(ValueError) as raised:
        kind(**settings)
    message = str(raised.value)
    (name, value), *_ = settings.items()
    assert message.startswith(f"{kind.__name__}: ") and name in message and str(value) in message


@pytest.mark.parametrize("kind", [Grid, Pool, Face, Behavior, Audio, Speaking, Loss, Fit, Mamba, Wavlm, Dcmmoe, Raav])
def test_defaults_are_in_range_and_cannot_be_changed(kind: type):
    settings = kind()
    with pytest.raises(AttributeError):
        setattr(settings, fields(kind)[0].name, None)


def test_an_address_ignores_how_many_actors_compute_it():
    pool = {"num_cpus": 4.0, "num_gpus": 1.0, "min_actors": 2, "max_actors": 8, "limit_s": 9.0, "node_label": "a=b"}
    assert {f.name for f in fields(Stage)} == set(pool)
    for settings in (Face(), Behavior(), Audio(), Run(name="a")):
        changed = replace(settings, face=Face(**pool)) if isinstance(settings, Run) else replace(settings, **pool)
        assert address(settings) == address(changed)
    assert address(Workers(num_cpus=1.0)) != address(Workers(num_cpus=2.0))  # the same name, but no pool


def test_an_address_follows_every_other_setting():
    others = [
        Face(weights="other"),
        Face(landmarker="other"),
        Face(min_confidence=0.3),
        Face(box_growth=0.2),
        Face(max_faces=1),
        Face(crop_px=224),
        Face(micro_batch=1),
        Audio(),
        Behavior(),
    ]
    addresses = {address(settings) for settings in [Face(), *others]}
    assert len(addresses) == len(others) + 1 and all(len(a) == 16 and int(a, 16) >= 0 for a in addresses)
    assert address(Run(name="a")) != address(Run(name="a", raav=Raav(fit=Fit(loss=Loss(min_points=3)))))


def test_an_address_follows_order_and_nesting_of_its_parts():
    assert len({address("a", "b"), address("b", "a"), address("ab"), address(["a", "b"]), address("a"), address()}) == 6
    assert address(("a", 1)) == address(["a", 1]) and address({"a": 1, "b": 2}) == address({"b": 2, "a": 1})


def test_an_address_is_the_same_in_every_process():
    assert address(Grid(), "a", 1, None) == "5f18808ed5b181a0"


@pytest.mark.parametrize("system", SYSTEMS)
def test_settings_survive_json(system: str):
    changed = Raav(dropout=0.3, fit=Fit(learning_rate=1e-3, loss=Loss(error="mae")))
    run = Run(name="a", raav=changed, dcmmoe=Dcmmoe(modalities=("audio", "face")))
    settings = run.settings_of(system)
    assert from_plain(SYSTEMS[system].model, json.loads(json.dumps(asdict(settings)))) == settings
    with pytest.raises(ValueError, match="has no setting nonsense"):
        from_plain(SYSTEMS[system].model, {"nonsense": 1})


def test_a_run_knows_what_its_systems_need():
    assert Run(name="a", systems=("audio",)).extracted == ("face", "audio")
    assert Run(name="a", systems=("behavior",)).extracted == ("behavior",)
    with pytest.raises(ValueError, match="dcmmoe reads the embeddings of behavior: add them to systems"):
        Run(name="a", systems=("face", "audio", "dcmmoe"))
    two = Run(name="a", systems=("face", "audio", "dcmmoe"), dcmmoe=Dcmmoe(modalities=("face", "audio")))
    assert two.modalities == two.extracted == ("face", "audio")


def test_what_json_cannot_say_has_no_address():
    with pytest.raises(ValueError, match="JSON"):
        address(NAN)
    with pytest.raises(TypeError):
        address({1, 2})


def test_settings_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match=r"segment_s 6.0 and wavlm.blocks 4"):
        Run(name="a", grid=Grid(segment_s=6.0))
    with pytest.raises(ValueError, match="WavLM needs 16000"):
        Audio(sample_rate_hz=8000)


@pytest.mark.parametrize("settings", [Behavior(), Wavlm()])
def test_hub_weights_are_named_by_a_commit_which_always_means_the_same_numbers(settings: Behavior | Wavlm):
    assert re.fullmatch("[0-9a-f]{40}", settings.revision)
