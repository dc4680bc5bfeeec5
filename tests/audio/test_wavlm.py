"""WavLM with attentive statistics: pooling by hand, blocks, masks, what is trained, checkpoints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WavLMConfig, WavLMModel

from affect.audio.wavlm import (
    AttentiveStatistics,
    WavlmRegressor,
    load_backbone,
    normalize,
    num_states,
    parameter_groups,
)
from affect.console.tiny import make_wavlm
from affect.settings.models import Wavlm
from affect.weights import WeightsError

pytestmark = pytest.mark.numeric

SETTINGS = Wavlm(trained_layers=1, pooling_hidden=8, hidden=12)
FULL = 64_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wavlm")
    make_wavlm(folder)
    return folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Three layers, with and without WavLM-Large's way of normalising."""
    made = {}
    for large in (True, False):
        made[large] = tmp_path_factory.mktemp("deep")
        make_wavlm(made[large])
        settings = WavLMConfig.from_pretrained(made[large])
        settings.num_hidden_layers, settings.do_stable_layer_norm = 3, large
        WavLMModel(settings).save_pretrained(made[large])
    return made


@pytest.fixture
def model(tiny: Path) -> WavlmRegressor:
    torch.manual_seed(0)
    return WavlmRegressor(SETTINGS, load_backbone(str(tiny), "main")).eval()


def pool_by_hand(pooling: AttentiveStatistics, h: Tensor) -> Tensor:
    """Statistics of one block (T, D) whose states are all valid, state by state."""
    first, _, _, second = pooling.score
    scores = [second.weight[0] @ torch.tanh(first.weight @ state + first.bias) for state in h]
    total = sum(score.exp() for score in scores)
    weights = [score.exp() / total for score in scores]
    mu = sum(weight * state for weight, state in zip(weights, h, strict=True))
    variance = sum(weight * (state - mu) ** 2 for weight, state in zip(weights, h, strict=True))
    return torch.cat([mu, (variance + 1e-6).sqrt()])


def test_pooling_and_head_have_as_many_parameters_as_published(model: WavlmRegressor) -> None:
    backbone = model.backbone
    backbone.config.hidden_size = 1024  # all that pooling and head read of WavLM-Large
    large = WavlmRegressor(Wavlm(), backbone)
    assert sum(p.numel() for p in large.pooling.parameters()) == 131_328
    assert sum(p.numel() for part in (large.embed, large.predict) for p in part.parameters()) == 529_154


@pytest.mark.parametrize("seed", range(3))
def test_attentive_statistics_are_those_made_by_hand(seed: int) -> None:
    torch.manual_seed(seed)
    pooling = AttentiveStatistics(6, 4, 0.2).double().eval()
    h, valid = 3 * torch.randn(3, 9, 6).double(), torch.rand(3, 9) < 0.7
    pooled = pooling(h.masked_fill(~valid[..., None], 1e6), valid)
    for b in range(3):
        torch.testing.assert_close(pooled[b], pool_by_hand(pooling, h[b, valid[b]]))


def test_a_block_without_states_has_finite_statistics_and_gradients() -> None:
    pooling = AttentiveStatistics(6, 4, 0.2)
    h = torch.randn(2, 5, 6, requires_grad=True)
    pooled = pooling(h, torch.tensor([[False] * 5, [True] + [False] * 4]))
    torch.testing.assert_close(pooled[0], torch.tensor([0.0] * 6 + [1e-3] * 6))
    pooled.sum().backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()


def test_normalisation_is_that_of_the_feature_extractor(tiny: Path) -> None:
    waves = [
        0.2 + 0.1 * np.random.default_rng(i).standard_normal(n).astype(np.float32) for i, n in enumerate((900, 400))
    ]
    expected = transformers.AutoFeatureExtractor.from_pretrained(tiny)(
        waves, sampling_rate=16_000, return_tensors="pt", padding=True
    )
    padded = torch.full((2, 900), 7.0)
    for row, wave in enumerate(waves):
        padded[row, : len(wave)] = torch.from_numpy(wave)
    inside = expected["attention_mask"].bool()
    torch.testing.assert_close(normalize(padded, inside), expected["input_values"], atol=1e-5, rtol=1e-5)


def test_four_seconds_are_199_states_and_a_click_is_none(tiny: Path) -> None:
    settings = load_backbone(str(tiny), "main").config
    assert num_states(torch.tensor([FULL, 32_000, 400, 399, 0]), settings).tolist() == [199, 99, 1, 0, 0]


def test_a_full_segment_is_cut_into_blocks_at_50_100_and_149(model: WavlmRegressor) -> None:
    waveform = torch.randn(1, FULL)
    mean, variance = waveform.mean(), waveform.var(unbiased=False)
    h = model.backbone((waveform - mean) / (variance + 1e-7).sqrt()).last_hidden_state[0]
    output = model(waveform, torch.tensor([FULL]))
    for block, (start, end) in enumerate([(0, 50), (50, 100), (100, 149), (149, 199)]):
        embedding = model.embed(pool_by_hand(model.pooling, h[start:end]))
        torch.testing.assert_close(output.embedding[0, block], embedding, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.prediction[0, block], model.predict(embedding), atol=1e-5, rtol=1e-4)


def test_a_tail_is_heard_as_if_it_were_alone(model: WavlmRegressor) -> None:
    tail = torch.randn(1, 24_000)
    alone = (tail - tail.mean()) / (tail.var(unbiased=False) + 1e-7).sqrt()
    h = model.backbone(alone).last_hidden_state[0]  # 74 states
    padded = torch.cat([tail, 1e3 * torch.randn(1, FULL - 24_000)], dim=1)
    output = model(padded, torch.tensor([24_000]))
    for block, (start, end) in enumerate([(0, 50), (50, 74)]):
        expected = model.embed(pool_by_hand(model.pooling, h[start:end]))
        torch.testing.assert_close(output.embedding[0, block], expected, atol=1e-5, rtol=1e-4)
    assert output.prediction.isfinite().all()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("length", [FULL, 1_000, 300, 1, 0])
def test_any_length_gives_finite_outputs_and_gradients_in_training(
    model: WavlmRegressor, length: int, stored: bool
) -> None:
    x, num_samples = torch.randn(2, FULL), torch.tensor([length, FULL])
    if stored:
        x = model.trunk(x, num_samples).detach()
        assert x.isfinite().all()
    output = model.train()(x, num_samples)
    output.prediction.square().sum().backward()
    assert output.prediction.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_silence_gives_finite_outputs(model: WavlmRegressor) -> None:
    assert model(torch.zeros(1, FULL), torch.tensor([FULL])).prediction.isfinite().all()


def test_a_shuffled_batch_gives_shuffled_outputs(model: WavlmRegressor) -> None:
    waveform, num_samples = torch.randn(3, FULL), torch.tensor([FULL, 40_000, 20_000])
    order = torch.tensor([2, 0, 1])
    ours, theirs = model(waveform[order], num_samples[order]), model(waveform, num_samples)
    torch.testing.assert_close(ours.prediction, theirs.prediction[order], atol=1e-5, rtol=1e-4)


def test_one_step_moves_the_top_layer_pooling_and_head_and_nothing_else(model: WavlmRegressor) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model), weight_decay=0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-6, 2e-4]
    model.train()(torch.randn(2, FULL), torch.tensor([FULL, FULL])).prediction.square().sum().backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    top = {name for name in before if name.startswith("backbone.encoder.layers.1.")}
    ours = {name for name in before if not name.startswith("backbone.")}
    assert moved == top | ours


@pytest.mark.parametrize(("trained_layers", "expected"), [(0, []), (2, [0, 1]), (9, [0, 1])])
def test_as_many_layers_are_trained_as_asked_for(tiny: Path, trained_layers: int, expected: list[int]) -> None:
    model = WavlmRegressor(Wavlm(trained_layers=trained_layers), load_backbone(str(tiny), "main"))
    layers = model.backbone.encoder.layers
    assert [i for i, layer in enumerate(layers) if all(p.requires_grad for p in layer.parameters())] == expected


def test_the_backbones_dropout_and_specaugment_stay_on_in_training(model: WavlmRegressor) -> None:
    assert model.backbone.config.apply_spec_augment
    assert model.backbone.config.layerdrop == 0
    waveform, num_samples = torch.randn(1, FULL), torch.tensor([FULL])
    model.train()
    model.pooling.eval()
    model.embed.eval()
    model.predict.eval()
    first, second = (model(waveform, num_samples).embedding for _ in range(2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(("name", "changes"), [("layerdrop", False), ("attention_dropout", True)])
def test_no_layer_is_dropped_in_training_and_attention_is(
    deep: dict[bool, Path], tmp_path: Path, name: str, changes: bool
) -> None:
    settings = WavLMConfig.from_pretrained(deep[True])
    for noise in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop"):
        setattr(settings, noise, 0.9 if noise == name else 0.0)
    settings.apply_spec_augment = False
    WavLMModel(settings).save_pretrained(tmp_path)
    quiet = Wavlm(trained_layers=3, pooling_hidden=8, hidden=12, dropout=0.0)
    model = WavlmRegressor(quiet, load_backbone(str(tmp_path), "main"))
    waveform, num_samples = torch.randn(1, FULL), torch.tensor([FULL])
    plain = model.eval()(waveform, num_samples).prediction
    noisy = [model.train()(waveform, num_samples).prediction for _ in range(4)]
    assert any(not torch.allclose(plain, said, atol=1e-6) for said in noisy) == changes


def test_no_gradient_is_kept_of_what_is_frozen(model: WavlmRegressor) -> None:
    x = torch.randn(1, FULL)
    assert model.train().backbone.feature_extractor(x).grad_fn is None


def test_the_tiny_backbone_is_its_seed_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_wavlm(tmp_path / name, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_pitch_can_be_read_off_the_tiny_backbone(tiny: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pitch = torch.empty(60).uniform_(100, 260, generator=generator)
    phase = 2 * torch.pi * pitch[:, None] * torch.arange(16_000) / 16_000
    voices = sum(torch.sin(k * phase) / k for k in range(1, 9))
    voices = voices + 0.02 * torch.randn(60, 16_000, generator=generator)
    with torch.inference_mode():
        inside = torch.ones_like(voices, dtype=torch.bool)
        states = load_backbone(str(tiny), "main")(normalize(voices, inside)).last_hidden_state.mean(dim=1)
    x = torch.cat([(states - states[:40].mean(dim=0)) / states[:40].std(dim=0), torch.ones(60, 1)], dim=1)
    weights = torch.linalg.solve(x[:40].T @ x[:40] + torch.eye(33), x[:40].T @ pitch[:40].log())
    guess, truth = x[40:] @ weights, pitch[40:].log()
    assert torch.corrcoef(torch.stack([guess, truth]))[0, 1] > 0.8


@pytest.mark.parametrize("old_names", [False, True])
def test_wavlm_is_unwrapped_from_a_speech_emotion_model(tiny: Path, tmp_path: Path, old_names: bool) -> None:
    tensors = {f"ssl_model.{name}": x for name, x in load_file(tiny / "model.safetensors").items()}
    if old_names:  # as torch < 2 called the two halves of a normalised weight
        norm = "parametrizations.weight.original"
        tensors = {k.replace(f"{norm}0", "weight_g").replace(f"{norm}1", "weight_v"): x for k, x in tensors.items()}
    save_file({**tensors, "ser_model.out.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ser", "ssl_type": str(tiny)}))
    unwrapped, plain = load_backbone(str(tmp_path), "main"), load_backbone(str(tiny), "main")
    assert isinstance(unwrapped, transformers.WavLMModel)
    torch.testing.assert_close(unwrapped.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_that_lacks_tensors_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny / "model.safetensors")
    del tensors["encoder.layer_norm.weight"], tensors["masked_spec_embed"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"lacks 1 of WavLM's tensors, the first is encoder\.layer_norm\.weight"):
        load_backbone(str(tmp_path), "main")


def spoilt(tiny: Path, folder: Path, name: str) -> str:
    """A checkpoint that cannot be used."""
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    weights, described = folder / "model.safetensors", folder / "config.json"
    match name:
        case "another":
            described.write_text(json.dumps({"model_type": "bert"}))
        case "no json":
            described.write_text("{")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:5000])
        case "no weights":
            weights.unlink()
        case "another shape":
            described.write_text(described.read_text().replace('"hidden_size": 32', '"hidden_size": 64'))
        case "wraps nothing":
            described.write_text(json.dumps({"model_type": "ser"}))
        case "wraps another":
            described.write_text(json.dumps({"model_type": "ser", "ssl_type": str(folder / "nowhere")}))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("another", "describes a bert model, wavlm or ser is needed"),
        ("no json", "no config.json that can be read"),
        ("cut", "cannot be loaded"),
        ("no weights", r"there is no \*.safetensors"),
        ("another shape", "cannot be loaded"),
        ("wraps nothing", "does not say which model it wraps"),
        ("wraps another", "nowhere: no such folder of weights"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(
    tiny: Path, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone(spoilt(tiny, tmp_path / "spoilt", name), "main")
    assert "\n" not in str(caught.value) and "affect" not in str(caught.value)


# transformers hands torch a boolean and a float mask in one call.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask:UserWarning")
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_fused_attention_gives_transformers_states_and_gradients(
    deep: dict[bool, Path], large: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    waveform = torch.randn(3, 20_000, generator=generator).double()
    mask = torch.arange(20_000) < torch.tensor([20_000, 11_000, 4_000])[:, None]
    states = num_states(mask.sum(dim=1), WavLMConfig.from_pretrained(deep[large]))
    theirs, ours = (load_backbone(str(deep[large]), "main").double() for _ in range(2))
    WavlmRegressor(Wavlm(trained_layers=3, pooling_hidden=8, hidden=12), ours)
    said = [model(waveform * mask, attention_mask=mask.long()).last_hidden_state for model in (theirs, ours)]
    for row, count in enumerate(states.tolist()):
        torch.testing.assert_close(said[1][row, :count], said[0][row, :count], atol=1e-10, rtol=1e-10)
        for h in said:
            (h[row, :count].square().sum() * (row + 1)).backward(retain_graph=True)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, gradients[name], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("trained_layers", [0, 1, 2, 3])
def test_trained_layers_on_the_trunks_states_say_what_the_whole_says(
    deep: dict[bool, Path], large: bool, trained_layers: int
) -> None:
    settings = Wavlm(trained_layers=trained_layers, pooling_hidden=8, hidden=12)
    model = WavlmRegressor(settings, load_backbone(str(deep[large]), "main")).eval()
    waveform, num_samples = torch.randn(3, FULL), torch.tensor([FULL, 30_000, 17_000])
    states = model.trunk(waveform, num_samples)
    assert states.shape == (3, 199, 32) and not states[1, 93:].any() and states[1, :93].abs().sum(dim=1).all()
    whole, top = model(waveform, num_samples), model(states, num_samples)
    torch.testing.assert_close(top.prediction, whole.prediction, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(top.embedding, whole.embedding, atol=1e-5, rtol=1e-5)
    short = model(states.half().float(), num_samples)  # as they are stored
    torch.testing.assert_close(short.prediction, whole.prediction, atol=3e-3, rtol=3e-3)


def test_training_on_the_trunks_states_moves_what_training_on_waveforms_moves(deep: dict[bool, Path]) -> None:
    settings = Wavlm(trained_layers=2, pooling_hidden=8, hidden=12, dropout=0.0)
    model = WavlmRegressor(settings, load_backbone(str(deep[True]), "main")).eval()  # no noise: gradients agree
    waveform, num_samples = torch.randn(2, FULL), torch.tensor([FULL, 40_000])
    gradients = []
    for x in (waveform, model.trunk(waveform, num_samples).detach()):
        model.zero_grad()
        model(x, num_samples).prediction.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_of_unequal_lengths_says_what_each_says_alone_whatever_the_padding(
    model: WavlmRegressor, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_samples = torch.cat([torch.tensor([FULL]), torch.randint(16_000, FULL, (4,), generator=generator)])
    waveform = 0.1 * torch.randn(5, FULL, generator=generator)
    together = model(waveform, num_samples)
    for row, length in enumerate(num_samples.tolist()):
        alone = torch.zeros(1, FULL)
        alone[0, :length] = waveform[row, :length]
        said = model(alone, torch.tensor([length]))
        blocks = -(-length // 16_000)
        torch.testing.assert_close(said.prediction[0, :blocks], together.prediction[row, :blocks], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(said.embedding[0, :blocks], together.embedding[row, :blocks], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_says_about_the_same_and_its_gradients_are_finite(model: WavlmRegressor, kind: torch.dtype):
    waveform, num_samples = torch.randn(2, FULL), torch.tensor([FULL, 40_000])
    exact = model(waveform, num_samples).prediction
    with torch.autocast("cpu", kind):
        half, embedding = model(waveform, num_samples)
    assert (embedding.dtype, half.dtype) == (kind, torch.float32)
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)
    half.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
