"""The audio's model: WavLM, whose top layers are trained, with attentive statistics over the blocks of a segment."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import WavLMConfig, WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention, WavLMPositionalConvEmbedding
from transformers.utils.logging import disable_progress_bar

from affect import weights
from affect.layers import Output, convolve_groups, gated_softmax
from affect.settings.models import Wavlm
from affect.weights import WeightsError

_KINDS = ("wavlm", "ser")
_WRAPPED = r"^ssl_model\."


def normalize(waveform: Float[Tensor, "B samples"], inside: Bool[Tensor, "B samples"]) -> Float[Tensor, "B samples"]:
    """Zero mean and unit variance over the true length, zero past it.

        (x - mean x) / sqrt(var x + 1e-7)      population moments

    Args:
        waveform: samples at 16 kHz.
        inside: false past a waveform's true length.

    Returns:
        What WavLM hears.

    Source: transformers, ``Wav2Vec2FeatureExtractor`` with ``do_normalize``.
    """
    length = inside.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    x = waveform.masked_fill(~inside, 0)
    x = (x - x.sum(dim=1, keepdim=True) / length).masked_fill(~inside, 0)
    return x / torch.sqrt(x.square().sum(dim=1, keepdim=True) / length + 1e-7)


def num_states(num_samples: Int[Tensor, " B"], settings: WavLMConfig) -> Int[Tensor, " B"]:
    """Count the states that WavLM's convolutions make of a waveform: 199 of 4 s, none of less than 25 ms.

    Args:
        num_samples: lengths of waveforms at 16 kHz.
        settings: the backbone's, whose convolutions are not padded.

    Returns:
        Number of states that see the waveform alone.
    """
    for kernel, stride in zip(settings.conv_kernel, settings.conv_stride, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
    return num_samples.clamp(min=0)


class AttentiveStatistics(nn.Module):
    """Weighted mean and deviation of a block's states; the weights are learned.

        e_t = w_2 . Drop(tanh(W_1 h_t + b_1)),   a = softmax(e) over the valid states
        mu  = sum of a h,   sigma = sqrt(sum of a (h - mu)^2 + 1e-6)

    h are the states of one block. A block without a valid state gives mu = 0, sigma = .001.

    Source: paper (arXiv 2603.13056), audio model; Okabe et al. (arXiv 1803.10963).
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        """Start the weights.

        Args:
            width: D, width of a state.
            hidden: rows of W_1.
            dropout: probability of the dropout.
        """
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 1, bias=False)
        )

    def forward(self, h: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B 2*D"]:
        """Pool a batch of blocks.

        Args:
            h: states.
            valid: false for states past the waveform's true length.

        Returns:
            ``[mu; sigma]``.
        """
        a = gated_softmax(self.score(h).squeeze(-1), valid)[..., None]  # (B, T, 1)
        mu = (a * h).sum(dim=1)  # (B, D)
        variance = (a * (h - mu[:, None]).square()).sum(dim=1)  # (B, D)
        return torch.cat([mu, torch.sqrt(variance + 1e-6)], dim=-1)


class Attention(WavLMAttention):
    """WavLM's own attention by torch's fused kernel.

        out = W_o softmax(q k^T / sqrt(d) + gated bias, -inf where masked) v

    transformers hands torch a transposed view and asks for the attention weights: torch then lays the weight matrices
    out once per time step. A batch of eight segments takes 23 s in bfloat16 on a CPU that way.
    """

    def torch_multi_head_self_attention(
        self,
        hidden_states: Float[Tensor, "B S D"],
        attention_mask: Tensor | None,
        gated_position_bias: Float[Tensor, "BH S S"],
        *_: Any,  # noqa: ANN401 -- earlier releases say whether the weights are wanted
    ) -> tuple[Float[Tensor, "B S D"], None]:
        """As transformers has it, without the attention weights, which nobody reads."""
        batch, length, width = hidden_states.shape
        heads = (batch, length, self.num_heads, self.head_dim)
        q, k, v = (
            project(hidden_states).view(heads).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, H, S, d)
        bias = gated_position_bias.view(batch, self.num_heads, length, length)
        if attention_mask is not None:
            bias = bias.masked_fill(~attention_mask[:, None, None].bool(), -torch.inf)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).reshape(batch, length, width)), None


class PositionalConvolution(WavLMPositionalConvEmbedding):
    """WavLM's own convolutional positions, in float32 on a CPU (see :func:`affect.layers.convolve_groups`)."""

    def forward(self, hidden_states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        """As transformers has it."""
        return convolve_groups(super().forward, hidden_states, self.conv.bias.dtype)


class WavlmRegressor(nn.Module):
    """Valence and arousal of each second of a segment from its waveform.

        h = WavLM(normalize(x));   p_i = AttentiveStatistics(states round(i S / K) to round((i + 1) S / K) of h)
        e_i = GELU(W_1 Drop(LN(p_i)) + b_1);   v, a = W_2 Drop(e_i) + b_2

    S states (199 in 4 s) are cut into K blocks; e is the embedding. The top layers of the encoder are trained, with
    pooling and head; the rest is frozen, and its dropout and SpecAugment stay on in training.

    Source: paper (arXiv 2603.13056), audio model.
    Differs: states past the true length are masked, in WavLM and in the pooling. The pooling is trained: in the
        authors' code no optimiser holds its parameters. No layer is dropped, which would leave parameters without a
        gradient on some workers.
    """

    def __init__(self, settings: Wavlm, backbone: WavLMModel) -> None:
        """Freeze what is not trained and start pooling and head.

        Args:
            settings: sizes, dropout, trained layers.
            backbone: WavLM with its pretrained weights; it is changed in place.
        """
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.backbone.config.layerdrop = 0.0
        self.backbone.requires_grad_(False)
        # Without this call transformers makes the convolutions' input require a gradient, and keeps their whole graph.
        self.backbone.freeze_feature_encoder()
        layers = self.backbone.encoder.layers
        for layer in layers:
            layer.attention.__class__ = Attention  # the names of the state stay
        self.backbone.encoder.pos_conv_embed.__class__ = PositionalConvolution
        self._num_frozen = len(layers) - min(settings.trained_layers, len(layers))
        layers[self._num_frozen :].requires_grad_(True)
        width = self.backbone.config.hidden_size
        self.pooling = AttentiveStatistics(width, settings.pooling_hidden, settings.dropout)
        self.embed = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Dropout(settings.dropout), nn.Linear(2 * width, settings.hidden), nn.GELU()
        )
        self.predict = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(settings.hidden, 2))

    def forward(self, x: Float[Tensor, "B samples"] | Float[Tensor, "B S D"], num_samples: Int[Tensor, " B"]) -> Output:
        """Predict every block of a batch of segments.

        Args:
            x: 16 kHz mono, padded at its end to a full segment (64,000 samples): blocks are cut from that. Or what
                :meth:`trunk` makes of it.
            num_samples: true length of each waveform.

        Returns:
            Prediction and embedding of each block; of a block past the true length they are finite and mean nothing.
        """
        h = self._top(x, num_samples) if x.ndim == 3 else self._states(x, num_samples)  # (B, S, D)
        valid = self._valid(h, num_samples)
        blocks = self.settings.blocks
        edges = [round(i * h.shape[1] / blocks) for i in range(1, blocks)]
        cut = zip(h.tensor_split(edges, dim=1), valid.tensor_split(edges, dim=1), strict=True)
        pooled = torch.stack([self.pooling(states, seen) for states, seen in cut], dim=1)  # (B, K, 2 D)
        embedding = self.embed(pooled)  # (B, K, H)
        return Output(self.predict(embedding), embedding)

    @property
    def sizes(self) -> dict[str, Any]:
        """The backbone's configuration as JSON has it: the model can be built from it without pretrained weights."""
        return dict(json.loads(self.backbone.config.to_json_string()))

    def trunk(self, waveform: Float[Tensor, "B samples"], num_samples: Int[Tensor, " B"]) -> Float[Tensor, "B S D"]:
        """States after the last frozen layer, 0 past the true length: what of the model never changes in training.

        Args:
            waveform: as in :meth:`forward`.
            num_samples: true length of each.
        """
        encoder = self.backbone.encoder
        layers, norm = encoder.layers, encoder.layer_norm
        encoder.layers = layers[: self._num_frozen]
        if self.backbone.config.do_stable_layer_norm:
            encoder.layer_norm = nn.Identity()  # it comes after the last of all layers
        try:
            h = self._states(waveform, num_samples)
        finally:
            encoder.layers, encoder.layer_norm = layers, norm
        return h.masked_fill(~self._valid(h, num_samples)[..., None], 0)

    def _states(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        inside = torch.arange(waveform.shape[1], device=waveform.device) < num_samples[:, None]  # (B, samples)
        return self.backbone(normalize(waveform, inside), attention_mask=inside.long()).last_hidden_state

    def _top(self, h: Tensor, num_samples: Tensor) -> Tensor:
        """The trained layers, which share the first layer's embedding of relative positions."""
        encoder, (batch, length, _) = self.backbone.encoder, h.shape
        valid = self._valid(h, num_samples)
        valid = valid | ~valid.any(dim=1, keepdim=True)  # a click has no state of its own, and softmax needs one
        bias = encoder.layers[0].attention.compute_bias(length, length).repeat(batch, 1, 1)  # (B heads, S, S)
        for layer in encoder.layers[self._num_frozen :]:
            h = layer(h, attention_mask=valid, position_bias=bias)[0]
        return encoder.layer_norm(h) if self.backbone.config.do_stable_layer_norm else h

    def _valid(self, h: Tensor, num_samples: Tensor) -> Bool[Tensor, "B S"]:
        """Which states lie within the true length."""
        return torch.arange(h.shape[1], device=h.device) < num_states(num_samples, self.backbone.config)[:, None]


def parameter_groups(model: WavlmRegressor) -> list[dict[str, list[nn.Parameter] | float]]:
    """Split what is trained by learning rate, for AdamW: backbone first, then pooling and head.

    Args:
        model: the model, whose settings hold both rates.

    Returns:
        Two groups; together they hold every parameter that requires a gradient, once.
    """
    heads = (model.pooling, model.embed, model.predict)
    return [
        {
            "params": [p for p in model.backbone.parameters() if p.requires_grad],
            "lr": model.settings.backbone_learning_rate,
        },
        {"params": [p for part in heads for p in part.parameters()], "lr": model.settings.fit.learning_rate},
    ]


def shape_of(name: str, revision: str) -> Path:
    """The folder whose ``json`` holds the sizes of a checkpoint's WavLM; a hub's weights are not fetched.

    Args:
        name: as in :func:`load_backbone`.
        revision: the same.

    Raises:
        WeightsError: it cannot be had, is a folder without weights, or describes another model.
    """
    find = weights.checkpoint if weights.is_path(name) else weights.described
    folder = find(name, revision, *_KINDS)
    said = json.loads((folder / "config.json").read_text())
    if said["model_type"] == "wavlm":
        return folder
    if not isinstance(said.get("ssl_type"), str):
        raise WeightsError(f"{name}: its json does not say which model it wraps (ssl_type)")
    return weights.described(said["ssl_type"], "main", "wavlm")


def sizes_of(name: str, revision: str) -> WavLMConfig:
    """The sizes of a checkpoint's WavLM: as :func:`shape_of`, read."""
    return WavLMConfig.from_pretrained(shape_of(name, revision))


def load_backbone(name: str, revision: str) -> WavLMModel:
    """Load WavLM from a checkpoint, plain or inside a speech-emotion model.

    Args:
        name: hub id or folder. A model that wraps WavLM as ``ssl_model`` and names its kind as ``ssl_type``, as
            ``3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes`` does, is unwrapped; its own head is left behind.
        revision: revision of the hub id.

    Returns:
        The model, float32, in eval mode.

    Raises:
        WeightsError: the checkpoint cannot be had, is damaged, or holds no WavLM or not all of it.
    """
    disable_progress_bar()
    shape, folder = sizes_of(name, revision), weights.checkpoint(name, revision, *_KINDS)
    try:
        loaded = WavLMModel.from_pretrained(
            folder,
            config=shape,
            dtype=torch.float32,
            use_safetensors=True,
            key_mapping={_WRAPPED: ""},
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # a tensor of another shape: RuntimeError
        raise weights.cannot_load(name, error) from error
    backbone, report = cast("tuple[WavLMModel, dict[str, set[str]]]", loaded)
    # transformers fills what a checkpoint lacks with random numbers and only logs it. SpecAugment's vector may be new.
    missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        raise WeightsError(f"{name}: the checkpoint lacks {len(missing)} of WavLM's tensors, the first is {missing[0]}")
    return backbone
