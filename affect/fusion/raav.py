"""Second fusion: a reliability gate over face and behaviour, and a bottleneck through which they hear the voice."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affect.layers import FusionOutput, gated_softmax, sinusoids_at
from affect.settings.models import Raav
from affect.settings.names import Modality

VISUAL: tuple[Modality, Modality] = ("face", "behavior")


class ReliabilityGate(nn.Module):
    """How far each visual modality is trusted at a frame.

        s_m = w''_m . Drop(GELU(W'_m x_m + b'_m)) + b''_m + log(p_m / sum p),   -inf where m is invalid
        z   = sum over m of softmax(s)_m x_m,                                    0 where none is valid

    x_m is a modality's projected frame, p_m its prior.

    Source: paper (arXiv 2603.13056), reliability-aware fusion.
    """

    log_prior: Tensor

    def __init__(self, settings: Raav) -> None:
        """Start one scorer per modality.

        Args:
            settings: sizes, dropout and priors.
        """
        super().__init__()
        width = settings.hidden
        self.score = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(width, 1))
                for m in VISUAL
            }
        )
        priors = torch.tensor([settings.face_prior, settings.behavior_prior])
        self.register_buffer("log_prior", torch.log(priors / priors.sum()), persistent=False)

    def forward(
        self, x: Float[Tensor, "B T M H"], valid: Bool[Tensor, "B T M"]
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T M"]]:
        """Weigh the modalities of each frame.

        Args:
            x: projected modalities.
            valid: true where a modality has evidence.

        Returns:
            z and the weights.
        """
        scores = torch.cat([self.score[m](x[:, :, i]) for i, m in enumerate(VISUAL)], dim=-1)  # (B, T, M)
        gates = gated_softmax(scores + self.log_prior, valid)
        return torch.einsum("btm,btmh->bth", gates, x), gates


class AudioBottleneck(nn.Module):
    """A few learned latents that read the audio tokens, and the frames that read the latents.

        B_a = LN(L_0 + Attn(L_0, tok, tok))
        Z_0 = LN(z + CrossAttn(LN(z), B_a, B_a));    no token left: Z_0 = LN(z), the outer one

    tok are the projected audio blocks, L_0 the latents, z the frames.

    Source: paper (arXiv 2603.13056), reliability-aware fusion.
    Differs: without tokens the authors' code passes z on as it is, so that the scale jumps from segment to segment.
    """

    def __init__(self, settings: Raav) -> None:
        """Start the weights; latents ~ N(0, .02).

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
        """Let each frame hear the segment.

        Args:
            z: fused visual frames.
            tokens: projected audio blocks.
            valid: false for blocks that were rejected or are missing.

        Returns:
            Z_0.
        """
        heard = valid.any(dim=-1, keepdim=True)  # (B, 1)
        latents = self.latents.expand(len(z), -1, -1)
        # A segment without tokens listens to all of them, so that its softmax is finite, and what it heard is dropped.
        attended, _ = self.listen(latents, tokens, tokens, key_padding_mask=~valid & heard, need_weights=False)
        bottleneck = self.latent_norm(latents + attended)
        query = self.query_norm(z)
        read, _ = self.read(query, bottleneck, bottleneck, need_weights=False)
        return self.out_norm(z + read.masked_fill(~heard[..., None], 0))


class RAAV(nn.Module):
    """Valence and arousal of each frame of a segment from face, behaviour and four seconds of voice.

        x_m   = valid_m W_m [embedding; prediction]      m in face, behaviour
        z     = gate(x_face, x_behaviour)                 :class:`ReliabilityGate`
        tok   = W_a [embedding; prediction]               one per audio block
        Z_0   = bottleneck(z, tok)                        :class:`AudioBottleneck`; 0 where nothing visual is valid
        y     = Transformer layer(s) over the frames, pre-norm, GELU
        e     = GELU(W_1 LN(y));   v, a = W_2 Drop(e)

    e is the embedding. Where nothing visual is valid the voice has no frame to change, and v, a say nothing. With
    ``positions``, sinusoids of the seconds from the segment's start are added to z and to tok: a frame's own, and the
    middle of each block of a second.

    Source: paper (arXiv 2603.13056), reliability-aware audio-visual fusion.
    Differs: the paper's frames and tokens carry no positions, so that the model cannot tell when a block lies: that is
        the default here, and ``positions`` turns them on.
    """

    def __init__(self, settings: Raav, input_widths: dict[str, int]) -> None:
        """Start the weights.

        Args:
            settings: sizes, dropout, priors and the switch of positions.
            input_widths: width of the input of ``face``, ``behavior`` and ``audio``.
        """
        super().__init__()
        width, dropout = settings.hidden, settings.dropout
        self.positions = settings.positions
        self.project = nn.ModuleDict({m: nn.Linear(input_widths[m], width) for m in (*VISUAL, "audio")})
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
        self.predict = nn.Linear(width, 2)

    def forward(
        self,
        face: Float[Tensor, "B T Df"],
        behavior: Float[Tensor, "B T Db"],
        audio: Float[Tensor, "B K Da"],
        visual_valid: Bool[Tensor, "B 2 T"],
        audio_valid: Bool[Tensor, "B K"],
        padding: Bool[Tensor, "B T"],
        time_s: Float[Tensor, "B T"] | None = None,
    ) -> FusionOutput:
        """Fuse a batch of segments.

        Args:
            face: embedding and prediction of the face at each frame.
            behavior: the same of the behaviour.
            audio: the same of each audio block.
            visual_valid: true where face (0) and behaviour (1) have evidence.
            audio_valid: false for blocks that were rejected or are missing.
            padding: true for frames that only fill the segment; each segment has at least one that does not.
            time_s: seconds of each frame from the segment's start; only positions read them.

        Returns:
            Prediction, embedding and the weights of face and behaviour at each frame.
        """
        valid = (visual_valid & ~padding[:, None]).mT  # (B, T, 2)
        x = torch.stack([self.project["face"](face), self.project["behavior"](behavior)], dim=2)  # (B, T, 2, H)
        z, gates = self.gate(x.masked_fill(~valid[..., None], 0), valid)  # (B, T, H), (B, T, 2)
        tokens = self.project["audio"](audio)  # (B, K, H)
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
