"""One process' share of a training, on the job's own process, a Ray Train worker or a Ray task."""

from affect.learning import distributed
from affect.learning.batches import Loader, load_here
from affect.learning.fit import CheckpointFile, fit
from affect.learning.observer import Observer
from affect.modalities import MODALITIES
from affect.pipeline.stream import TrackLoader
from affect.pipeline.workers import device_of
from affect.storage import files
from affect.tracks.tables import load_track
from affect.trained.embedded import put_embedded
from affect.trained.inputs import prepared
from affect.trained.training import Training
from affect.trained.write_model import write_model


def is_streamed(training: Training) -> bool:
    """Whether Ray Data reads the batches: on workers, for a modality whose inputs are too large to keep in memory."""
    streamed = training.system in MODALITIES and MODALITIES[training.system].streamed
    return streamed and training.run.workers.num_workers > 0


def loader_of(training: Training) -> Loader:
    """Loader of a training's batches: Ray Data if they are streamed, else a thread of this process."""
    if not is_streamed(training):
        return load_here
    refs = {ref.name: ref for ref in training.refs}
    return TrackLoader(training.system, refs, training.store, training.trunk, training.run.workers.loader_cpus)


def train_model(training: Training) -> None:
    """Trains a model together with the other processes; rank 0 writes it, each process embeds its share of tracks."""
    run, system, store = training.run, training.system, training.store
    rank, processes = distributed.world()
    inputs = prepared(training)
    task, tracks, _ = inputs
    split = {s: [tracks[ref.name] for ref in training.refs if ref.split == s] for s in ("train", "development")}
    checkpoint_file = CheckpointFile(training.checkpoint, run.workers.checkpoint_steps)
    fitted = task.solve(split["train"], split["development"])
    if fitted is None:
        with Observer(training.label, training.uri, task.settings.max_epochs, rank) as observer:
            fitted = fit(
                task,
                split["train"],
                split["development"],
                device=device_of(run.workers),
                on_epoch=observer.epoch,
                on_step=observer.step,
                loader=loader_of(training),
                checkpoint_file=checkpoint_file,
            )
    if system in MODALITIES:
        for ref in training.embeds[rank::processes]:
            track = load_track(store, ref, training.tables)
            put_embedded(store, system, training.address, task, fitted.model, track, ref)
    distributed.wait_for_all()  # a model.json says that everything before it is there
    if rank == 0:
        write_model(training, inputs, fitted)
        files.delete(checkpoint_file.uri)
