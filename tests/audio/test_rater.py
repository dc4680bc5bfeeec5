"""The speech-emotion model's own ratings against a plain reference in float64."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from affect.audio import rater
from affect.audio.rater import Rater
from affect.audio.wavlm import load_backbone
from affect.weights import WeightsError
from tests.public_weights import MEAN, STD, make_speech_emotion


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("ser")
    return folder, make_speech_emotion(folder)


def waveforms(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [(rng.normal(size=n) * 2000 * (i + 1)).astype(np.int16) for i, n in enumerate(lengths)]


def reference(folder: Path, head: dict[str, Tensor], wave: np.ndarray) -> np.ndarray:
    """Arousal, dominance and valence of one waveform, step by step as the publisher's code has them."""
    p = {name: value.double() for name, value in head.items()}
    x = (torch.from_numpy(wave / 32768) - MEAN) / (STD + 1e-6)
    with torch.inference_mode():
        h = load_backbone(str(folder), "main").double()(x[None]).last_hidden_state[0]  # (S, D)
    h = h[: (len(wave) - 1) // 320 + 1]
    scores = torch.tanh(h @ p["pool_model.sap_linear.weight"].T + p["pool_model.sap_linear.bias"])
    a = torch.softmax(scores @ p["pool_model.attention"], dim=0)  # (S, 1)
    mu = (a * h).sum(dim=0)
    sigma = ((a * h**2).sum(dim=0) - mu**2).clamp(min=1e-5).sqrt()
    z = p["ser_model.fc.0.0.weight"] @ torch.cat([mu, sigma]) + p["ser_model.fc.0.0.bias"]
    z = (z - z.mean()) / torch.sqrt(z.var(unbiased=False) + 1e-5)
    z = torch.relu(z * p["ser_model.fc.0.1.weight"] + p["ser_model.fc.0.1.bias"])
    return (p["ser_model.out.0.weight"] @ z + p["ser_model.out.0.bias"]).numpy()


def test_ratings_are_those_of_a_plain_reference(checkpoint: tuple[Path, dict[str, Tensor]]):
    folder, head = checkpoint
    waves = waveforms(64_000, 64_000, 31_000, 64_000, 700)
    found = Rater(str(folder), "main", 2, "cpu")(waves)
    expected = np.stack([reference(folder, head, wave) for wave in waves])
    arousal, dominance, valence = (2 * expected - 1).clip(-1, 1).T
    assert found == pytest.approx(np.stack([valence, arousal, dominance], axis=1), abs=1e-5)
    assert (np.abs(found) < 1).any() and np.ptp(found, axis=0).min() > 1e-3


def test_a_waveform_too_short_for_a_state_has_no_rating(checkpoint: tuple[Path, dict[str, Tensor]]):
    found = Rater(str(checkpoint[0]), "main", 8, "cpu")([*waveforms(399, 64_000), np.empty(0, dtype=np.int16)])
    assert np.isnan(found).all(axis=1).tolist() == [True, False, True]


def spoilt(folder: Path, name: str) -> None:
    config, path = json.loads((folder / "config.json").read_text()), folder / "model.safetensors"
    tensors = load_file(path)
    match name:
        case "no mean":
            del config["mean"]
        case "std":
            config["std"] = 0.0
        case "no head":
            tensors = {name: value for name, value in tensors.items() if not name.startswith("ser_model")}
        case "another head":
            tensors["ser_model.out.0.weight"] = torch.zeros(2, 48)
            tensors["ser_model.out.0.bias"] = torch.zeros(2)
        case "another layer":
            tensors["ser_model.fc.0.2.weight"] = torch.zeros(3)
        case "plain":
            config["model_type"] = "wavlm"
    save_file(tensors, path, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no mean", "it has no mean: it is no model that rates speech"),
        ("std", "config.json has mean .* and std 0.0"),
        ("no head", "it has no ser_model.out.0.weight"),
        ("another head", "its head has 2 outputs; arousal, dominance and valence are wanted"),
        ("another layer", r"tensor ser_model\.fc\.0\.2\.weight \[3\] does not belong to the model"),
        ("plain", "describes a wavlm model, ser is needed"),
    ],
)
def test_a_checkpoint_without_such_a_head_is_refused_in_one_line(
    checkpoint: tuple[Path, dict[str, Tensor]], tmp_path: Path, name: str, message: str
):
    shutil.copytree(checkpoint[0], tmp_path, dirs_exist_ok=True)
    spoilt(tmp_path, name)
    with pytest.raises(WeightsError, match=message) as raised:
        rater.check(str(tmp_path), "main")
    assert "\n" not in str(raised.value)


def test_the_large_wavlm_is_built_from_its_known_sizes(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ser", "ssl_type": "microsoft/wavlm-large"}))
    config = rater.config_of(str(tmp_path), "main")
    assert (config.hidden_size, config.num_hidden_layers, config.do_stable_layer_norm) == (1024, 24, True)
