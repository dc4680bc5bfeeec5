"""RAAV fusion: a reliability gate over visual modalities, and an audio bottleneck."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affect.layers import FusionOutput, OutputLinear, gated_softmax, sinusoids_at
from affect.settings.models import Raav


class ReliabilityGate(nn.Module):
    """Reliability gate: weights of the visual modalities at each frame.

        s_m = w''_m . Drop(GELU(W'_m x_m + b'_m)) + b''_m + log(p_m / sum p),   -inf where m is invalid
        z   = sum over m of softmax(s)_m x_m,                                    0 where none is valid

    x_m is a modality's projected frame, p_m its prior.

    Source: paper (arXiv 2603.13056), reliability-aware fusion; spec section 7.
    """

    log_prior: Tensor

    def __init__(self, settings: Raav) -> None:
        """Creates one scorer per modality.

        Args:
            settings: sizes, dropout and priors.
        """
        super().__init__()
        width = settings.hidden
        self.score = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(width, 1))
                for m in settings.priors
            }
        )
        priors = torch.tensor(list(settings.priors.values()))
        self.register_buffer("log_prior", torch.log(priors / priors.sum()), persistent=False)

    def forward(
        self, x: Float[Tensor, "B T M H"], valid: Bool[Tensor, "B T M"]
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T M"]]:
        """Fuses the modalities of each frame.

        Args:
            x: projected modalities.
            valid: true where a modality has evidence.

        Returns:
            Fused frames z, and weights of the modalities, which sum to 1 (0 where none is valid).
        """
        scores = torch.cat([score(x[:, :, i]) for i, score in enumerate(self.score.values())], dim=-1)  # (B, T, M)
        gates = gated_softmax(scores + self.log_prior, valid)
        return torch.einsum("btm,btmh->bth", gates, x), gates


class AudioBottleneck(nn.Module):
    """Learned latents that attend to the audio tokens, and frames that attend to the latents.

        B_a = LN(L_0 + Attn(L_0, tok, tok))
        Z_0 = LN(z + CrossAttn(LN(z), B_a, B_a));    without valid tokens: Z_0 = LN(z), the outer LN

    tok are the projected audio blocks, L_0 the latents, z the frames.

    Source: paper (arXiv 2603.13056), reliability-aware fusion; spec section 7.
    Differs: without tokens the authors' code returns z without LN, so its scale differs between segments.
    """

    def __init__(self, settings: Raav) -> None:
        """Creates the weights; latents are normal with standard deviation .02.

        Args:
            settings: sizes and dropout.
        """
        super().__init__()
        width, heads, dropout = settings.hidden, settings.heads, settings.dropout
        self.latents = nn.Parameter(0.02 * torch.randn(settings.latents, width))
        self.listen = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.latent_norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(width)
        self.read = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.out_norm = nn.LayerNorm(width)

    def forward(
        self, z: Float[Tensor, "B T H"], tokens: Float[Tensor, "B K H"], valid: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B T H"]:
        """Adds the segment's audio to each frame.

        Args:
            z: fused visual frames.
            tokens: projected audio blocks.
            valid: false for rejected and missing blocks.

        Returns:
            Frames Z_0.
        """
        has_tokens = valid.any(dim=-1, keepdim=True)  # (B, 1)
        latents = self.latents.expand(len(z), -1, -1)
        # A segment without valid tokens attends to all, which keeps its softmax finite; its result is masked below.
        attended, _ = self.listen(latents, tokens, tokens, key_padding_mask=~valid & has_tokens, need_weights=False)
        bottleneck = self.latent_norm(latents + attended)
        query = self.query_norm(z)
        read, _ = self.read(query, bottleneck, bottleneck, need_weights=False)
        return self.out_norm(z + read.masked_fill(~has_tokens[..., None], 0))


class RAAV(nn.Module):
    """Valence and arousal of each frame of a segment, from visual modalities and the segment's audio blocks.

        x_m   = valid_m W_m [embedding; prediction]       m visual: face, behaviour
        z     = gate(x)                                   :class:`ReliabilityGate`
        tok   = W_a [embedding; prediction]               one per audio block
        Z_0   = bottleneck(z, tok)                        :class:`AudioBottleneck`; 0 where nothing visual is valid
        y     = Transformer layer(s) over the frames, pre-norm, GELU
        e     = GELU(W_1 LN(y));   v, a = W_2 Drop(e)

    e is the embedding. v and a are undefined at frames where nothing visual is valid. With ``positions``, sinusoids of
    the seconds since the segment's start are added to z (time of the frame) and to tok (middle of the block).

    Source: paper (arXiv 2603.13056), reliability-aware audio-visual fusion; spec section 7.
    Differs: ``positions`` is ours and off by default. Without it, as in the paper, the model has no information on the
        order of frames and blocks.
    """

    def __init__(self, settings: Raav, input_widths: dict[str, int]) -> None:
        """Creates the weights.

        Args:
            settings: sizes, dropout, priors and ``positions``.
            input_widths: width of the input of each visual modality and of the audio.
        """
        super().__init__()
        width, dropout = settings.hidden, settings.dropout
        self.positions = settings.positions
        self.visual, self.audio = tuple(settings.priors), settings.audio
        self.project = nn.ModuleDict({m: nn.Linear(input_widths[m], width) for m in (*self.visual, self.audio)})
        self.gate = ReliabilityGate(settings)
        self.bottleneck = AudioBottleneck(settings)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                settings.heads,
                settings.feedforward,
                dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(settings.layers)
        )
        self.embed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.predict = OutputLinear(width, 2)

    def forward(
        self,
        audio: Float[Tensor, "B K Da"],
        visual_valid: Bool[Tensor, "B M T"],
        audio_valid: Bool[Tensor, "B K"],
        padding: Bool[Tensor, "B T"],
        time_s: Float[Tensor, "B T"] | None = None,
        **visual: Float[Tensor, "B T _"],
    ) -> FusionOutput:
        """Fuses a batch of segments.

        Args:
            audio: embedding and prediction of the audio at each block.
            visual_valid: true where a visual modality has evidence, in the order of the priors.
            audio_valid: false for rejected and missing blocks.
            padding: true for padding frames; each segment has at least one other frame.
            time_s: seconds since the segment's start, of each frame; needed with ``positions`` only.
            **visual: embedding and prediction of each visual modality (``face``, ``behavior``) at each frame.

        Returns:
            Prediction, embedding and the weights of the visual modalities at each frame.
        """
        valid = (visual_valid & ~padding[:, None]).mT  # (B, T, M)
        x = torch.stack([self.project[m](visual[m]) for m in self.visual], dim=2)  # (B, T, M, H)
        z, gates = self.gate(x.masked_fill(~valid[..., None], 0), valid)  # (B, T, H), (B, T, M)
        tokens = self.project[self.audio](audio)  # (B, K, H)
        if self.positions:
            assert time_s is not None
            z = z + sinusoids_at(time_s, like=z)
            block_s = torch.arange(tokens.shape[1], device=tokens.device) + 0.5
            tokens = tokens + sinusoids_at(block_s, like=tokens)
        y = self.bottleneck(z, tokens, audio_valid).masked_fill(~valid.any(dim=-1, keepdim=True), 0)
        for layer in self.layers:
            y = layer(y, src_key_padding_mask=padding)
        embedding = self.embed(y)
        return FusionOutput(self.predict(self.dropout(embedding)), embedding, gates)
