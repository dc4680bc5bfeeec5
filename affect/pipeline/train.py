"""Training: assembled tracks, one system after the other, on this process or on Ray Train workers.

tracks --> face | behavior | audio --> embedded/<model address>/<track> --> dcmmoe | raav

RUNS/<system>/<address:16>/model.safetensors, model.json        a model is complete when its model.json is there
RUNS/<system>.json                                              the address of the system's latest model
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import torch

from affect import files, learning, schema, weights
from affect.config import MODALITIES, Modality, Run, address
from affect.corpus.clip import Extracted
from affect.corpus.track import Blocks, Series, Track
from affect.learning import Fitted, Outputs
from affect.pipeline import plan
from affect.pipeline.assemble import TrackRef, load_track, matrix, rows_of
from affect.pipeline.progress import say
from affect.pipeline.store import Store, slug
from affect.pipeline.workers import device_of, on_workers, open_many_files, teller
from affect.tasks import AudioTask, BehaviorTask, DcmmoeTask, FaceTask, RaavTask, TrackTask, load_weights, save_weights

System = Literal["face", "behavior", "audio", "dcmmoe", "raav"]
SYSTEMS = cast(tuple[System, ...], schema.SYSTEMS)
FUSIONS: tuple[System, ...] = ("dcmmoe", "raav")


@dataclass(frozen=True)
class Model:
    """A trained model on disk.

    Args:
        system: which system it is.
        uri: its folder.
        address: of everything that decided its numbers.
        settings: address of its settings.
        features: addresses of the features it was trained on, by modality.
        widths: widths of what it reads.
        upstream: addresses of the models whose embeddings it reads.
        best: epoch, CCC valence, arousal and mean on the development tracks it was selected on.
    """

    system: System
    uri: str
    address: str
    settings: str
    features: dict[str, str]
    widths: dict[str, int]
    upstream: dict[str, str]
    best: dict[str, int | float]


def settings_of(run: Run, system: System) -> Any:  # noqa: ANN401 -- one of five dataclasses
    """The settings of a system in a run."""
    names = {"face": "face_transformer", "behavior": "mamba", "audio": "wavlm", "dcmmoe": "dcmmoe", "raav": "raav"}
    return getattr(run, names[system])


def settings_address(run: Run, system: System) -> str:
    """Address of a system's settings, the content of pretrained weights included."""
    settings = settings_of(run, system)
    if system != "audio":
        return address(settings)
    content = weights.identity(run.wavlm.weights, run.wavlm.revision)
    return address(dataclasses.replace(settings, weights="", revision=""), content)


def make_task(run: Run, system: System, widths: Mapping[str, int]) -> TrackTask:
    """A system's task.

    Args:
        run: the run.
        system: which.
        widths: of the face embedding and the behaviour state, or of the modalities' embeddings for a fusion.
    """
    settings = settings_of(run, system)
    sizes = cast(Mapping[Modality, int], widths)
    match system:
        case "face":
            return FaceTask(settings, widths["face"])
        case "behavior":
            return BehaviorTask(settings, widths["behavior"])
        case "audio":
            return AudioTask(settings, round(run.grid.segment_s * run.audio.sample_rate_hz))
        case "dcmmoe":
            return DcmmoeTask(settings, sizes)
        case "raav":
            return RaavTask(settings, sizes)


def widths_of(run: Run, system: System, tracks: list[Track]) -> dict[str, int]:
    """Widths of what a system reads, from the tracks that have it."""
    if system in FUSIONS:
        hidden = {"face": run.face_transformer.hidden, "behavior": run.mamba.hidden, "audio": run.wavlm.hidden}
        return {m: hidden[m] for m in (run.dcmmoe.modalities if system == "dcmmoe" else MODALITIES)}
    face = max(track.face_embedding.shape[1] for track in tracks)
    return {"face": face, "behavior": max(track.segments.multimodal.shape[1] for track in tracks)}


def train(
    run: Run, refs: list[TrackRef], store: Store, runs: str, systems: tuple[System, ...] = SYSTEMS
) -> list[Model]:
    """Train what is missing of the systems, modalities before fusions.

    Args:
        run: the run.
        refs: assembled tracks.
        store: where they are and where embeddings go.
        runs: where models go.
        systems: which systems.

    Returns:
        The models, in order.

    Raises:
        ValueError: a fusion is asked for without the modalities' models, or a split has no track.
    """
    for split in ("train", "development"):
        if not any(ref.split == split for ref in refs):
            raise ValueError(f"no usable track in the {split} split")
    runs = files.absolute(runs)
    upstream: dict[str, str] = {}
    models = []
    for system in SYSTEMS:
        if system not in systems:
            continue
        needed = upstream if system in FUSIONS else {}
        if system in FUSIONS and (absent := [m for m in MODALITIES if m not in upstream]):
            raise ValueError(f"{system} reads the embeddings of {', '.join(absent)}: train them too")
        mark = address(
            schema.VERSION, system, settings_address(run, system), sorted((r.key, r.split) for r in refs), needed
        )
        uri = files.join(runs, system, mark)
        if files.exists(files.join(uri, "model.json")):
            say(f"train {system}: there already, {uri}")
        else:
            job: dict[str, Any] = {
                "run": run,
                "system": system,
                "refs": refs,
                "store": store,
                "uri": uri,
                "address": mark,
            }
            job |= {"upstream": dict(needed), "features": dict(plan.addresses(run))}
            on_workers(_train, job, run.workers, f"{system}-{mark}", uri)
        model = load_model_card(uri)
        _embed_missing(run, model, refs, store)
        files.write(files.join(runs, f"{system}.json"), json.dumps({"address": mark}).encode())
        models.append(model)
        if system in MODALITIES:
            upstream[system] = mark
    return models


def _embed_missing(run: Run, model: Model, refs: list[TrackRef], store: Store) -> None:
    """Write what a finished model says of tracks that this store does not have it of."""
    if model.system not in MODALITIES:
        return
    present = store.keys(f"embedded/{model.address}")
    missing = [ref for ref in refs if _embedded_key(model.address, ref.name, "frames") not in present]
    if not missing:
        return
    task = make_task(run, model.system, model.widths)
    network = load_weights(task.build(), files.read(files.join(model.uri, "model.safetensors")))
    for ref in missing:
        track = load_track(store, ref)
        outputs = learning.run(task, network, track, torch.device("cpu"))
        put_embeddings(store, model.address, track, *embed(task, track, outputs))


def _train(job: dict[str, Any]) -> None:
    """One process' share of a system's training; the first one writes the model, each its share of embeddings."""
    run, system, store = cast(Run, job["run"]), cast(System, job["system"]), cast(Store, job["store"])
    open_many_files()
    rank, processes = learning.world()
    refs: list[TrackRef] = job["refs"]
    tracks = {ref.name: with_embeddings(load_track(store, ref), store, job["upstream"]) for ref in refs}
    widths = widths_of(run, system, list(tracks.values()))
    task = make_task(run, system, widths)
    split = {s: [tracks[ref.name] for ref in refs if ref.split == s] for s in ("train", "development")}
    device = device_of(run.workers)
    fitted = learning.fit(task, split["train"], split["development"], device=device, on_epoch=teller(system, rank))
    if system in MODALITIES:
        for track in list(tracks.values())[rank::processes]:
            outputs = learning.run(task, fitted.model, track, device)
            put_embeddings(store, job["address"], track, *embed(task, track, outputs))
    if processes > 1:
        torch.distributed.barrier()  # a model.json says that everything before it is there
    if rank == 0:
        _save(job, fitted, widths, settings_address(run, system))


def _save(job: dict[str, Any], fitted: Fitted, widths: dict[str, int], settings: str) -> None:
    names = ("valence", "arousal", "mean")
    history = [
        {"epoch": e.number, "loss": e.loss, "learning_rate": e.learning_rate, "skipped": e.skipped}
        | dict(zip(names, map(float, e.ccc), strict=True))
        for e in fitted.history
    ]
    best = {"epoch": fitted.best.number} | dict(zip(names, map(float, fitted.best.ccc), strict=True))
    card = {
        "system": job["system"],
        "address": job["address"],
        "settings": settings,
        "features": job["features"],
        "widths": widths,
        "upstream": job["upstream"],
        "best": best,
    }
    files.write(files.join(job["uri"], "model.safetensors"), save_weights(fitted.model))
    files.write(files.join(job["uri"], "history.json"), json.dumps(history, indent=1).encode())
    files.write(files.join(job["uri"], "model.json"), json.dumps(card, indent=1).encode())
    say(
        f"train {job['system']}: best of {len(fitted.history)} epochs is {fitted.best.number}, development CCC "
        f"{best['valence']:.3f} valence, {best['arousal']:.3f} arousal, {best['mean']:.3f} mean (selected on it)"
    )


def load_model_card(uri: str) -> Model:
    """What is known of a trained model.

    Raises:
        FileNotFoundError: there is none.
    """
    card = json.loads(files.read(files.join(uri, "model.json")))
    return Model(uri=uri, **card)


def embed(task: TrackTask, track: Track, outputs: Outputs) -> tuple[Series, Blocks | None]:
    """What a trained unimodal model says of a track, from its windows' outputs."""
    blocks = task.blocks(track, outputs) if isinstance(task, AudioTask) else None
    return task.series(track, outputs), blocks


def _embedded_key(model: str, track: str, name: str) -> str:
    return f"embedded/{model}/{slug(track)}-{address(track)}/{name}.arrow"


def put_embeddings(store: Store, model: str, track: Track, series: Series, blocks: Blocks | None) -> None:
    """Write what a unimodal model says of a track, blocks first: present frames mean that all is there."""
    if blocks is not None:
        num, per_segment, width = blocks.embedding.shape
        columns = {
            "segment": np.repeat(np.arange(num), per_segment),
            "block": np.tile(np.arange(per_segment), num),
            "embedding": rows_of(blocks.embedding.reshape(-1, width), pa.float32()),
            "valence": blocks.prediction[..., 0].reshape(-1),
            "arousal": blocks.prediction[..., 1].reshape(-1),
            "valid": blocks.valid.reshape(-1),
        }
        table = pa.table(columns).cast(schema.EMBEDDED_BLOCKS)
        store.put(_embedded_key(model, track.name, "blocks"), Extracted(table))
    columns = {
        "frame": np.arange(track.num_frames),
        "embedding": rows_of(series.embedding, pa.float32()),
        "valence": series.prediction[:, 0],
        "arousal": series.prediction[:, 1],
        "valid": series.valid,
    }
    table = pa.table(columns).cast(schema.EMBEDDED_FRAMES)
    store.put(_embedded_key(model, track.name, "frames"), Extracted(table))


def with_embeddings(track: Track, store: Store, models: Mapping[str, str]) -> Track:
    """A track with what the unimodal models say of it."""
    series = {}
    blocks = track.blocks
    for modality, model in models.items():
        table = store.get(_embedded_key(model, track.name, "frames")).table
        series[cast(Modality, modality)] = Series(
            matrix(table["embedding"]), _two(table).astype(np.float32), table["valid"].to_numpy()
        )
        if modality == "audio":
            table = store.get(_embedded_key(model, track.name, "blocks")).table
            embedding = matrix(table["embedding"])
            shape = (len(track.segments.ranges), -1)
            valid = table["valid"].to_numpy().reshape(shape)
            blocks = Blocks(embedding.reshape(*valid.shape, -1), _two(table).reshape(*valid.shape, 2), valid)
    return dataclasses.replace(track, series=series, blocks=blocks)


def _two(table: pa.Table) -> np.ndarray:
    return np.stack([table["valence"].to_numpy(), table["arousal"].to_numpy()], axis=1)
