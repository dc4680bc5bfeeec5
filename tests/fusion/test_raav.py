"""The reliability-aware fusion: its size, its equations as loops, its rules of evidence."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from affect.fusion import raav
from affect.fusion.raav import RAAV
from affect.layers import sinusoids_at
from affect.settings.models import Raav

pytestmark = pytest.mark.numeric

SMALL = Raav(hidden=16, heads=4, feedforward=24, latents=3)
WIDTHS = {"face": 10, "behavior": 7, "audio": 9}
Inputs = dict[str, Tensor]


@pytest.fixture
def model() -> RAAV:
    torch.manual_seed(0)
    return RAAV(SMALL, WIDTHS).eval()


def make_segments(batch: int = 3, length: int = 8) -> Inputs:
    return {
        "face": torch.randn(batch, length, 10),
        "behavior": torch.randn(batch, length, 7),
        "audio": torch.randn(batch, 4, 9),
        "visual_valid": torch.rand(batch, 2, length) < 0.6,
        "audio_valid": torch.rand(batch, 4) < 0.6,
        "padding": torch.arange(length) >= torch.randint(length // 2, length + 1, (batch, 1)),
    }


def multi_head(attention: nn.MultiheadAttention, query: Tensor, keys: Tensor) -> Tensor:
    """Attention of one query (H) over keys (S, H), head by head."""
    width = len(query)
    w, b = attention.in_proj_weight, attention.in_proj_bias
    q = w[:width] @ query + b[:width]
    k = keys @ w[width : 2 * width].T + b[width : 2 * width]
    v = keys @ w[2 * width :].T + b[2 * width :]
    size = width // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        heads.append((k[:, part] @ q[part] / math.sqrt(size)).softmax(dim=0) @ v[:, part])
    return attention.out_proj(torch.cat(heads))


def reference(model: RAAV, b: int, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """One segment, frame by frame."""
    length = inputs["padding"].shape[1]
    log_prior = {"face": math.log(0.85), "behavior": math.log(0.15)}
    tokens = model.project["audio"](inputs["audio"][b])[inputs["audio_valid"][b]]
    room = model.bottleneck
    bottleneck = [room.latent_norm(l0 + multi_head(room.listen, l0, tokens)) for l0 in room.latents]
    streams, all_gates = [], []
    for t in range(length):
        scores, frames = {}, {}
        for i, m in enumerate(("face", "behavior")):
            if inputs["visual_valid"][b, i, t] and not inputs["padding"][b, t]:
                frames[m] = model.project[m](inputs[m][b, t])
                hidden, _, _, out = model.gate.score[m]
                scores[m] = out(functional.gelu(hidden(frames[m])))[0] + log_prior[m]
        total = sum(s.exp() for s in scores.values())
        gates = {m: s.exp() / total for m, s in scores.items()}
        all_gates.append(torch.stack([gates.get(m, torch.zeros(()).double()) for m in ("face", "behavior")]))
        if not frames:
            streams.append(torch.zeros(16).double())
            continue
        z = sum(gates[m] * frames[m] for m in frames)
        read = multi_head(room.read, room.query_norm(z), torch.stack(bottleneck)) if len(tokens) else 0
        streams.append(room.out_norm(z + read))
    y = torch.stack(streams)
    for layer in model.layers:
        keys = layer.norm1(y[~inputs["padding"][b]])
        y = y + torch.stack([multi_head(layer.self_attn, layer.norm1(frame), keys) for frame in y])
        y = y + layer.linear2(functional.gelu(layer.linear1(layer.norm2(y))))
    norm, linear, _ = model.embed
    embedding = functional.gelu(linear(norm(y)))
    return model.predict(embedding), embedding, torch.stack(all_gates)


def test_it_has_as_many_parameters_as_published() -> None:
    model = RAAV(Raav(), {"face": 258, "behavior": 258, "audio": 258})
    assert sum(p.numel() for p in model.parameters()) == 1_716_484


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_is_the_equations_frame_by_frame(seed: int) -> None:
    torch.manual_seed(seed)
    model = RAAV(SMALL, WIDTHS).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as identities, which would hide a mistake
            parameter.add_(0.2 * torch.randn_like(parameter))
    inputs = {name: x.double() if x.is_floating_point() else x for name, x in make_segments().items()}
    inputs["audio_valid"][0] = False
    output = model(**inputs)
    for b in range(3):
        for ours, theirs in zip(output, reference(model, b, inputs), strict=True):
            torch.testing.assert_close(ours[b], theirs)


def test_gradients_of_a_batch_are_those_of_the_equations_frame_by_frame() -> None:
    torch.manual_seed(4)
    model = RAAV(SMALL, WIDTHS).double().eval()
    inputs = {name: x.double() if x.is_floating_point() else x for name, x in make_segments().items()}
    inputs["audio_valid"][0] = False
    inputs |= {name: inputs[name].requires_grad_() for name in WIDTHS}
    weight = torch.randn(3, 8, 2).double()
    wanted = [*model.parameters(), *(inputs[name] for name in WIDTHS)]

    def gradients(predictions: list[Tensor]) -> list[Tensor]:
        loss = (torch.stack(predictions) * weight)[~inputs["padding"]].sum()
        return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))

    fast = gradients(list(model(**inputs).prediction))
    slow = gradients([reference(model, b, inputs)[0] for b in range(3)])
    assert all(bool(gradient.any()) for gradient in slow[-3:])
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_evaluation_without_gradients_gives_the_same_numbers(model: RAAV) -> None:
    inputs = make_segments()
    with torch.inference_mode():
        quick = model(**inputs).prediction
    torch.testing.assert_close(quick[~inputs["padding"]], model(**inputs).prediction[~inputs["padding"]])


def test_invalid_rejected_and_padded_inputs_change_nothing_however_large(model: RAAV) -> None:
    inputs = make_segments(batch=6)
    inputs["audio_valid"][0] = False
    seen = inputs["visual_valid"] & ~inputs["padding"][:, None]
    spoilt = {
        **inputs,
        "face": inputs["face"].masked_fill(~seen[:, 0, :, None], 1e6),
        "behavior": inputs["behavior"].masked_fill(~seen[:, 1, :, None], 1e6),
        "audio": inputs["audio"].masked_fill(~inputs["audio_valid"][..., None], 1e6),
    }
    for ours, theirs in zip(model(**spoilt), model(**inputs), strict=True):
        torch.testing.assert_close(ours[~inputs["padding"]], theirs[~inputs["padding"]])


def test_gate_weights_sum_to_one_over_what_is_valid(model: RAAV) -> None:
    inputs = make_segments(batch=8)
    gates = model(**inputs).gates
    seen = (inputs["visual_valid"] & ~inputs["padding"][:, None]).mT
    assert torch.equal(gates > 0, seen)
    torch.testing.assert_close(gates.sum(dim=-1), seen.any(dim=-1).float())


def test_with_equal_scores_the_gates_are_the_priors() -> None:
    torch.manual_seed(0)
    model = RAAV(Raav(hidden=16, heads=4, face_prior=3.0, behavior_prior=1.0), WIDTHS).eval()
    for score in model.gate.score.values():
        nn.init.zeros_(score[-1].weight)
        nn.init.zeros_(score[-1].bias)
    inputs = make_segments()
    inputs["visual_valid"][:], inputs["padding"][:] = True, False
    torch.testing.assert_close(model(**inputs).gates, torch.tensor([0.75, 0.25]).expand(3, 8, 2))


@pytest.mark.parametrize("there", list(product([False, True], repeat=3)))
def test_any_subset_of_modalities_gives_finite_outputs_and_gradients(
    model: RAAV, there: tuple[bool, bool, bool]
) -> None:
    face, behavior, audio = there
    inputs = make_segments()
    inputs["visual_valid"] = torch.tensor([face, behavior])[None, :, None].expand(3, 2, 8).clone()
    inputs["visual_valid"][1, :, 3:] = False
    inputs["audio_valid"][:] = audio
    output = model.train()(**inputs)
    assert all(x.isfinite().all() for x in output)
    (output.prediction.square().sum() + output.embedding.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_without_audio_the_frames_are_only_normalised(model: RAAV) -> None:
    z, tokens = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    valid = torch.tensor([[False] * 4, [True] * 4])
    heard = model.bottleneck(z, tokens, valid)
    torch.testing.assert_close(heard[0], functional.layer_norm(z[0], (16,)))
    assert not torch.allclose(heard[1], functional.layer_norm(z[1], (16,)))


def test_a_shuffled_batch_gives_shuffled_outputs(model: RAAV) -> None:
    inputs, order = make_segments(batch=5), torch.randperm(5)
    for ours, theirs in zip(model(**{k: x[order] for k, x in inputs.items()}), model(**inputs), strict=True):
        torch.testing.assert_close(ours, theirs[order])


@pytest.mark.parametrize("positions", [False, True])
def test_only_positions_tell_when_a_frame_or_a_block_lies(positions: bool) -> None:
    torch.manual_seed(0)
    model = RAAV(Raav(hidden=16, heads=4, positions=positions), WIDTHS).eval()
    inputs = make_segments()
    inputs["visual_valid"][:], inputs["audio_valid"][:], inputs["padding"][:] = True, True, False
    inputs["time_s"] = (0.5 * torch.arange(8)).expand(3, 8)
    prediction = model(**inputs).prediction
    frames = model(**{**inputs, "face": inputs["face"].flip(1), "behavior": inputs["behavior"].flip(1)}).prediction
    blocks = model(**{**inputs, "audio": inputs["audio"].flip(1)}).prediction
    assert torch.allclose(frames.flip(1), prediction, atol=1e-5) is not positions
    assert torch.allclose(blocks, prediction, atol=1e-5) is not positions


def test_positions_of_frames_and_blocks_count_the_same_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames a second apart, in the middle of each block, have the blocks' positions."""
    asked: list[Tensor] = []

    def noted(position: Tensor, like: Tensor) -> Tensor:
        asked.append(position)
        return sinusoids_at(position, like)

    monkeypatch.setattr(raav, "sinusoids_at", noted)
    inputs = make_segments(batch=2, length=4)
    inputs["padding"][:] = False
    model = RAAV(Raav(hidden=16, heads=4, positions=True), WIDTHS).eval()
    model(**inputs, time_s=(torch.arange(4) + 0.5).expand(2, 4))
    frames, blocks = asked
    assert blocks.tolist() == [0.5, 1.5, 2.5, 3.5] and torch.equal(frames[0], blocks)
