"""Recipes: functions that return the settings of a complete run, and the default places of its files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from affect.settings.encoder import CropAugment, EncoderRun, GradaShape
from affect.settings.extraction import Audio, Behavior, Description, Face
from affect.settings.models import Augment, Dcmmoe, FaceTransformer, Linear, Mamba, Raav, Wavlm
from affect.settings.names import SPEECH_EMOTION, SPEECH_EMOTION_REVISION
from affect.settings.run import Run
from affect.settings.training import Fit, Loss, Workers


@dataclass(frozen=True)
class Places:
    """Places of a run's files.

    Args:
        videos: folder or bucket prefix of labelled videos.
        labels: annotation folder, with ``Train_Set`` and ``Validation_Set``.
        store: feature store.
        runs: folder of trained models.
        new_videos: videos to predict.
        template: the challenge's template of frames to predict.
        truth: folder of annotations of the new videos.
        out: folder of predictions.
    """

    videos: str
    labels: str
    store: str
    runs: str
    new_videos: str
    template: str
    truth: str
    out: str


GENERATOR_VERSION = 1
"""Version of the generated corpus; increase it when its files change."""


def demo_places(root: str = "demo") -> Places:
    """Places of the demo, all under one folder."""
    top = Path(root).absolute()
    corpus = top / "corpus"
    return Places(
        videos=str(corpus / "videos"),
        labels=str(corpus / "labels"),
        store=str(top / "store"),
        runs=str(top / "runs"),
        new_videos=str(corpus / "held_out" / "videos"),
        template=str(corpus / "held_out" / "template.txt"),
        truth=str(corpus / "held_out" / "labels"),
        out=str(top / "predictions"),
    )


def demo(root: str = "demo") -> Run:
    """The whole system at a tiny size, on a generated corpus and with checkpoints made locally.

    Sizes and learning rates are chosen to finish within minutes on two cores; held-out people were not used to choose
    them. All other values are the paper's.
    """
    weights = Path(root).absolute() / "weights"
    batch = Loss(ccc_over="batch")
    audio_loss = Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.1, min_points=4)
    fusion_loss = Loss(valence_weight=0.7, arousal_weight=0.3, ccc_over="batch", error_weight=0.01, min_points=4)
    return Run(
        name="demo",
        face=Face(weights=str(weights / "grada"), crop_px=96, num_cpus=0.4, min_actors=2, max_actors=2),
        behavior=Behavior(weights=str(weights / "qwen"), min_frame_pixels=4_096, max_frame_pixels=12_544, num_cpus=0.4),
        description=Description(num_cpus=0.2, max_tokens=32),
        audio=Audio(num_cpus=0.4),
        face_transformer=FaceTransformer(
            hidden=64,
            layers=2,
            heads=4,
            window_frames=100,
            window_hop_frames=50,
            fit=Fit(learning_rate=1e-3, max_epochs=30, stop_patience=8),
        ),
        mamba=Mamba(
            hidden=64,
            layers=2,
            head_hidden=64,
            fit=Fit(learning_rate=2e-3, weight_decay=1e-3, max_epochs=60, stop_patience=12, loss=batch),
        ),
        wavlm=Wavlm(
            weights=str(weights / "wavlm"),
            trained_layers=2,
            hidden=64,
            backbone_learning_rate=1e-3,
            augment=Augment(gain=0.3, noise=0.3, band_limit=0.0, reverb=0.0),
            fit=Fit(learning_rate=2e-3, max_epochs=30, stop_patience=8, clip_norm=1.0, loss=audio_loss),
        ),
        dcmmoe=Dcmmoe(
            hidden=32,
            layers=2,
            heads=4,
            window_frames=100,
            window_hop_frames=50,
            fit=Fit(learning_rate=1e-3, max_epochs=30, stop_patience=8),
        ),
        raav=Raav(
            hidden=64,
            feedforward=128,
            fit=Fit(learning_rate=1e-3, max_epochs=30, stop_patience=8, clip_norm=1.0, loss=fusion_loss),
        ),
        workers=Workers(num_workers=0),
    )


def grada() -> EncoderRun:
    """The frame encoder at full size (EfficientNet-B1), on any labelled images; learning rates and epochs are ours."""
    return EncoderRun(name="grada")


def demo_grada() -> EncoderRun:
    """The demo's frame encoder: narrow, few epochs, without a moving average of the weights."""
    return EncoderRun(
        name="demo",
        shape=GradaShape(width=0.25, depth=0.4, embedding=64, crop_px=96),
        trunk_learning_rate=2e-3,
        expression_weight=0.3,
        augment=CropAugment(turn_deg=5.0, brightness=0.0, contrast=0.0, saturation=0.0, grey=0.0, erase=0.0),
        fit=Fit(
            learning_rate=2e-3,
            batch_size=32,
            max_epochs=6,
            stop_patience=6,
            loss=Loss(ccc_over="batch", error_weight=1.0, min_points=4),
        ),
        workers=Workers(loader_cpus=0.5),
    )


def corpus_places(root: str = "affwild2") -> Places:
    """Default places of a licensed corpus: videos, labels and template in one folder."""
    corpus = Path(root).absolute()
    return Places(
        videos=str(corpus / "videos"),
        labels=str(corpus / "labels"),
        store=str(corpus.parent / "store"),
        runs=str(corpus.parent / "runs"),
        new_videos=str(corpus / "videos"),
        template=str(corpus / "template.txt"),
        truth=str(corpus / "labels"),
        out=str(corpus.parent / "predictions"),
    )


def face() -> Run:
    """Row 1 of the paper's results: temporal Transformer over GRADA embeddings."""
    return Run(name="face", systems=("face",))


def behavior() -> Run:
    """Row 3: Mamba over multimodal states of Qwen3-VL."""
    return Run(name="behavior", systems=("behavior",))


def behavior_vision() -> Run:
    """Row 2: a smaller Mamba over vision-only states of Qwen3-VL."""
    mamba = Mamba(states="vision", hidden=128, layers=4, kernel=3, dropout=0.1)
    return Run(name="behavior_vision", systems=("behavior",), mamba=mamba)


def behavior_dense() -> Run:
    """Ours: Mamba over one Qwen3-VL state per half second, eight per segment instead of one."""
    return Run(name="behavior_dense", systems=("behavior",), mamba=Mamba(states="dense"))


def audio() -> Run:
    """Row 4: WavLM on the segments in which the visible mouth speaks; needs no frame encoder."""
    return Run(name="audio", systems=("audio",), face=Face(weights=""))


def audio_cached() -> Run:
    """Ours: WavLM with stored outputs of its frozen layers: fast to train, no waveform augmentation."""
    return Run(name="audio_cached", systems=("audio",), face=Face(weights=""), wavlm=Wavlm(cached=True))


def dcmmoe_face_audio() -> Run:
    """Row 5: DCMMOE of face and audio."""
    fusion = Dcmmoe(modalities=("face", "audio"))
    return Run(name="dcmmoe_face_audio", systems=("face", "audio", "dcmmoe"), dcmmoe=fusion)


def dcmmoe() -> Run:
    """Row 7: DCMMOE of face, behaviour and audio."""
    return Run(name="dcmmoe", systems=("face", "behavior", "audio", "dcmmoe"))


def raav() -> Run:
    """Row 8: RAAV of face, behaviour and audio, the paper's best."""
    return Run(name="raav", systems=("face", "behavior", "audio", "raav"))


def public() -> Run:
    """Ours: valence and arousal of public encoders, without training; train.py fits them to labels in seconds."""
    face = Face(encoder="onnx", weights="hsemotion", num_cpus=0.9)  # both fit on two cores
    audio = Audio(rater=SPEECH_EMOTION, rater_revision=SPEECH_EMOTION_REVISION, num_cpus=0.9)
    return Run(name="public", systems=("linear",), face=face, audio=audio)


def blendshapes() -> Run:
    """Ours: for labels of your own and no weights: a linear map of the face mesh's expressions, solved in seconds."""
    face = Face(encoder="blendshapes", num_cpus=0.9)
    return Run(name="blendshapes", systems=("linear",), face=face, linear=Linear(modalities=("face",)))


@dataclass(frozen=True)
class Published:
    """A row of the paper's results on Aff-Wild2.

    Args:
        valence: CCC on the development set.
        arousal: CCC on the development set.
        mean: mean of the two.
        test: mean CCC on the test set; None if not published.
    """

    valence: float
    arousal: float
    mean: float
    test: float | None = None


PUBLISHED = {
    "face": Published(0.587, 0.651, 0.619, 0.54),
    "behavior (vision only)": Published(0.250, 0.552, 0.401),
    "behavior": Published(0.429, 0.648, 0.539),
    "audio": Published(0.342, 0.464, 0.403),
    "dcmmoe (face + audio)": Published(0.625, 0.667, 0.646, 0.58),
    "dcmmoe": Published(0.610, 0.688, 0.649, 0.61),
    "raav": Published(0.608, 0.707, 0.658, 0.62),
}
"""The paper's results by system. Source: paper (arXiv 2603.13056), results on Aff-Wild2; spec section 9."""

Recipe = tuple[Callable[[], Run], Callable[[], Places]]
"""Makes a run, and the places of its files."""

RECIPES: dict[str, Recipe] = {
    "demo": (demo, demo_places),
    **{
        recipe.__name__: (recipe, corpus_places)
        for recipe in (
            face,
            behavior_vision,
            behavior,
            behavior_dense,
            audio,
            audio_cached,
            dcmmoe_face_audio,
            dcmmoe,
            raav,
            public,
            blendshapes,
        )
    },
}
"""Recipes and their default places, by name."""


CAVEAT = "These are the demo's models, made on generated faces and voices: they say nothing about real people."


def caveat_of(recipe: str) -> str:
    """The caveat of the demo recipe and of searches over it; empty for other recipes."""
    return CAVEAT if recipe.startswith("demo") else ""
