"""Audio model: WavLM with trained top layers, attentive statistics per block of a segment, and a regression head."""

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
from transformers.utils import logging

from affect import weights
from affect.layers import Output, OutputLinear, gated_softmax, grouped_convolution
from affect.settings.models import Wavlm
from affect.weights import WeightsError

_KINDS = ("wavlm", "ser")  # model types that are accepted; "ser" wraps WavLM as `ssl_model`
_WRAPPED = r"^ssl_model\."


def normalize(waveform: Float[Tensor, "B samples"], inside: Bool[Tensor, "B samples"]) -> Float[Tensor, "B samples"]:
    """Normalises to zero mean and unit variance over the true length; 0 past it.

        y = (x - mean x) / sqrt(var x + 1e-7)          population moments

    Args:
        waveform: samples at 16 kHz.
        inside: false past a waveform's true length.

    Returns:
        WavLM's input.

    Source: transformers, ``Wav2Vec2FeatureExtractor`` with ``do_normalize``; spec section 5.1.
    """
    length = inside.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    x = waveform.masked_fill(~inside, 0)
    x = (x - x.sum(dim=1, keepdim=True) / length).masked_fill(~inside, 0)
    return x / torch.sqrt(x.square().sum(dim=1, keepdim=True) / length + 1e-7)


def num_states(num_samples: Int[Tensor, " B"], settings: WavLMConfig) -> Int[Tensor, " B"]:
    """Counts the states that WavLM's convolutions compute from a waveform: 199 for 4 s, none below 25 ms.

    Args:
        num_samples: lengths of waveforms at 16 kHz.
        settings: configuration of the backbone; its convolutions are not padded.

    Returns:
        Number of states whose receptive field lies inside the waveform.
    """
    for kernel, stride in zip(settings.conv_kernel, settings.conv_stride, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
    return num_samples.clamp(min=0)


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation of a block's states, with learned weights.

        e_t = w_2 . Drop(tanh(W_1 h_t + b_1));   a = softmax(e) over the valid t
        mu = sum_t a_t h_t;   sigma = sqrt(sum_t a_t (h_t - mu)^2 + 1e-6)

    where h_t are the states of one block, (T, D). A block without a valid state gives mu = 0, sigma = .001.

    Source: paper (arXiv 2603.13056), section 3.4; spec section 5.5; Okabe et al. (arXiv 1803.10963).
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        """Initialises the weights.

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
        """Pools a batch of blocks.

        Args:
            h: states of each block.
            valid: false for states past the waveform's true length.

        Returns:
            ``[mu; sigma]``.
        """
        a = gated_softmax(self.score(h).squeeze(-1), valid)[..., None]  # (B, T, 1)
        mu = (a * h).sum(dim=1)  # (B, D)
        variance = (a * (h - mu[:, None]).square()).sum(dim=1)  # (B, D)
        return torch.cat([mu, torch.sqrt(variance + 1e-6)], dim=-1)


class Attention(WavLMAttention):
    """WavLM's attention, computed by torch's fused kernel.

        out = W_o softmax(q k^T / sqrt(d) + gated bias, -inf where masked) v

    Differs: transformers passes torch a transposed view and requests the attention weights, so that torch converts the
        weight matrices once per time step: 23 s for a batch of eight segments in bfloat16 on a CPU.
    """

    def torch_multi_head_self_attention(
        self,
        hidden_states: Float[Tensor, "B S D"],
        attention_mask: Tensor | None,
        gated_position_bias: Float[Tensor, "BH S S"],
        *_: Any,  # noqa: ANN401 -- earlier releases pass `output_attentions`
    ) -> tuple[Float[Tensor, "B S D"], None]:
        """Computes what transformers does, without returning attention weights."""
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
    """WavLM's convolutional positions; in float32 on a CPU, see :func:`affect.layers.grouped_convolution`."""

    def forward(self, hidden_states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        """Computes what transformers does."""
        return grouped_convolution(super().forward, hidden_states, self.conv.bias.dtype)


def with_fast_layers(backbone: WavLMModel) -> WavLMModel:
    """Replaces a WavLM's attention and convolutional positions by the classes above, in place."""
    for layer in backbone.encoder.layers:
        layer.attention.__class__ = Attention  # keeps the names in the state dict
    backbone.encoder.pos_conv_embed.__class__ = PositionalConvolution
    return backbone


class WavlmRegressor(nn.Module):
    """Predicts valence and arousal of each block of a segment from its waveform.

        h = WavLM(normalize(x));   p_i = AttentiveStatistics(h_t for round(i S / K) <= t < round((i + 1) S / K))
        e_i = GELU(W_1 Drop(LN(p_i)) + b_1);   v_i, a_i = W_2 Drop(e_i) + b_2

    where
        x    waveform, 64,000 samples in 4 s
        h    S states, 199 in 4 s
        i    block 0 .. K - 1, 1 s each
        e_i  embedding that the fusions read

    The top layers of the encoder, pooling and head are trained. The other layers are frozen; their dropout and
    SpecAugment are active in training.

    Source: paper (arXiv 2603.13056), section 3.4; spec section 5.5.
    Differs: states past the true length are masked, in WavLM and in the pooling. The pooling is trained; in the
        authors' code its parameters are in no optimiser group. Layerdrop is 0: dropped layers would leave parameters
        without a gradient in some processes.
    """

    def __init__(self, settings: Wavlm, backbone: WavLMModel) -> None:
        """Freezes the lower layers and initialises pooling and head.

        Args:
            settings: sizes, dropout, number of trained layers.
            backbone: WavLM with its pretrained weights; changed in place.
        """
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.backbone.config.layerdrop = 0.0
        self.backbone.requires_grad_(False)
        # Without this call transformers makes the convolutions' input require a gradient and keeps their graph.
        self.backbone.freeze_feature_encoder()
        layers = with_fast_layers(self.backbone).encoder.layers
        self._num_frozen = len(layers) - min(settings.trained_layers, len(layers))
        layers[self._num_frozen :].requires_grad_(True)
        width = self.backbone.config.hidden_size
        self.pooling = AttentiveStatistics(width, settings.pooling_hidden, settings.dropout)
        self.embed = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Dropout(settings.dropout), nn.Linear(2 * width, settings.hidden), nn.GELU()
        )
        self.predict = nn.Sequential(nn.Dropout(settings.dropout), OutputLinear(settings.hidden, 2))

    def forward(self, x: Float[Tensor, "B samples"] | Float[Tensor, "B S D"], num_samples: Int[Tensor, " B"]) -> Output:
        """Predicts every block of a batch of segments.

        Args:
            x: 16 kHz mono, padded at its end to a full segment (64,000 samples), or the states that :meth:`trunk`
                computes from it.
            num_samples: true length of each waveform.

        Returns:
            Prediction and embedding of each block. Those of blocks past the true length are finite but meaningless.
        """
        h = self._top(x, num_samples) if x.ndim == 3 else self._states(x, num_samples)  # (B, S, D)
        valid = self._valid(h, num_samples)
        blocks = self.settings.blocks
        edges = [round(i * h.shape[1] / blocks) for i in range(1, blocks)]
        parts = zip(h.tensor_split(edges, dim=1), valid.tensor_split(edges, dim=1), strict=True)
        pooled = torch.stack([self.pooling(states, inside) for states, inside in parts], dim=1)  # (B, K, 2 D)
        embedding = self.embed(pooled)  # (B, K, H)
        return Output(self.predict(embedding), embedding)

    @property
    def sizes(self) -> dict[str, Any]:
        """Configuration of the backbone as JSON values; enough to build the model without pretrained weights."""
        return dict(json.loads(self.backbone.config.to_json_string()))

    def trunk(self, waveform: Float[Tensor, "B samples"], num_samples: Int[Tensor, " B"]) -> Float[Tensor, "B S D"]:
        """Computes the states after the last frozen layer, which do not change in training; 0 past the true length.

        Args:
            waveform: 16 kHz mono, padded at its end to a full segment.
            num_samples: true length of each waveform.
        """
        encoder = self.backbone.encoder
        layers, norm = encoder.layers, encoder.layer_norm
        encoder.layers = layers[: self._num_frozen]
        if self.backbone.config.do_stable_layer_norm:
            encoder.layer_norm = nn.Identity()  # it belongs after the last layer
        try:
            h = self._states(waveform, num_samples)
        finally:
            encoder.layers, encoder.layer_norm = layers, norm
        return h.masked_fill(~self._valid(h, num_samples)[..., None], 0)

    def _states(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        inside = torch.arange(waveform.shape[1], device=waveform.device) < num_samples[:, None]  # (B, samples)
        return self.backbone(normalize(waveform, inside), attention_mask=inside.long()).last_hidden_state

    def _top(self, h: Tensor, num_samples: Tensor) -> Tensor:
        """Runs the trained layers; all layers share the first layer's relative position bias."""
        encoder, (batch, length, _) = self.backbone.encoder, h.shape
        valid = self._valid(h, num_samples)
        valid = valid | ~valid.any(dim=1, keepdim=True)  # a waveform below 25 ms has no valid state; softmax needs one
        bias = encoder.layers[0].attention.compute_bias(length, length).repeat(batch, 1, 1)  # (B heads, S, S)
        for layer in encoder.layers[self._num_frozen :]:
            h = layer(h, attention_mask=valid, position_bias=bias)[0]
        return encoder.layer_norm(h) if self.backbone.config.do_stable_layer_norm else h

    def _valid(self, h: Tensor, num_samples: Tensor) -> Bool[Tensor, "B S"]:
        """True for states within the true length."""
        return torch.arange(h.shape[1], device=h.device) < num_states(num_samples, self.backbone.config)[:, None]


def parameter_groups(model: WavlmRegressor) -> list[dict[str, list[nn.Parameter] | float]]:
    """Builds AdamW's parameter groups: the backbone's trained layers, then pooling and head.

    Args:
        model: the model; its settings hold both learning rates.

    Returns:
        Two groups that hold every parameter with a gradient once.
    """
    heads = (model.pooling, model.embed, model.predict)
    return [
        {
            "params": [p for p in model.backbone.parameters() if p.requires_grad],
            "lr": model.settings.backbone_learning_rate,
        },
        {"params": [p for part in heads for p in part.parameters()], "lr": model.settings.fit.learning_rate},
    ]


def config_folder(name: str, revision: str) -> Path:
    """Finds the folder with the ``config.json`` of a checkpoint's WavLM; does not fetch weights from the hub.

    Args:
        name: hub id or folder, as in :func:`load_backbone`.
        revision: revision of the hub id.

    Raises:
        WeightsError: it cannot be fetched, is a folder without weights, or describes another model.
    """
    find = weights.checkpoint if weights.is_path(name) else weights.checkpoint_config
    folder = find(name, revision, *_KINDS)
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "wavlm":
        return folder
    if not isinstance(config.get("ssl_type"), str):
        raise WeightsError(f"{name}: its config.json does not say which model it wraps (ssl_type)")
    return weights.checkpoint_config(config["ssl_type"], "main", "wavlm")


def load_config(name: str, revision: str) -> WavLMConfig:
    """Reads the configuration of a checkpoint's WavLM.

    Args:
        name: hub id or folder, as in :func:`load_backbone`.
        revision: revision of the hub id.

    Raises:
        WeightsError: as :func:`config_folder`.
    """
    return WavLMConfig.from_pretrained(config_folder(name, revision))


def load_backbone(name: str, revision: str, config: WavLMConfig | None = None) -> WavLMModel:
    """Loads WavLM from a checkpoint of it, or of a speech-emotion model that contains it.

    Args:
        name: hub id or folder. Of a model with WavLM as ``ssl_model`` and its hub id as ``ssl_type``, such as
            ``3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes``, only the WavLM is loaded.
        revision: revision of the hub id.
        config: configuration of the WavLM; None for that of :func:`load_config`.

    Returns:
        The model, float32, in eval mode.

    Raises:
        WeightsError: the checkpoint cannot be fetched, is damaged, or holds no complete WavLM.
    """
    logging.disable_progress_bar()
    level = logging.get_verbosity()
    config, folder = config or load_config(name, revision), weights.checkpoint(name, revision, *_KINDS)
    logging.set_verbosity_error()  # what is missing is checked below, what is another part's does not matter
    try:
        loaded = WavLMModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            key_mapping={_WRAPPED: ""},
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # a tensor of another shape: RuntimeError
        raise weights.load_error(name, error) from error
    finally:
        logging.set_verbosity(level)
    backbone, report = cast("tuple[WavLMModel, dict[str, set[str]]]", loaded)
    # transformers initialises missing tensors at random and only logs it. SpecAugment's mask vector may be missing.
    missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        raise WeightsError(f"{name}: the checkpoint lacks {len(missing)} of WavLM's tensors, the first is {missing[0]}")
    return backbone
