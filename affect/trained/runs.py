"""What a training is kept under, and what it was made with: RUNS/<name>.json, its models, settings and store."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from affect import weights
from affect.modalities import MODALITIES, SYSTEMS
from affect.settings.extraction import Stage
from affect.settings.paths import from_plain, setting, with_settings
from affect.settings.run import Run
from affect.storage import files


def run_name(recipe: str, folds: int) -> str:
    """What the trainings of a recipe are kept under."""
    return f"{recipe}-{folds}folds" if folds else recipe


def note_run(run: Run, runs: str, name: str, store: str, models: Mapping[str, str]) -> None:
    """Note a training: its settings, its store and its models; models that it had before and has not now stay.

    Args:
        run: the run.
        runs: where models are.
        name: from :func:`run_name`.
        store: where its features are.
        models: addresses by system.
    """
    known = {**read_run(runs, name), **models}
    lasting = {path: weights.absolute_name(setting(run, path)) for path in run.files()}
    note = {"systems": known, "store": store, "settings": dataclasses.asdict(with_settings(run, lasting))}
    files.write(files.join(runs, f"{name}.json"), json.dumps(note, indent=1).encode())


def read_run(runs: str, name: str) -> dict[str, str]:
    """Addresses of a run's models by system; none if there is no such run.

    Raises:
        ValueError: the file is damaged.
    """
    return _read_note(runs, name).get("systems", {})


def _read_note(runs: str, name: str) -> dict[str, Any]:
    path = files.join(runs, f"{name}.json")
    if not files.exists(path):
        return {}
    try:
        return dict(json.loads(files.read(path)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no list of models ({error}); delete it and run jobs/train.py again") from error


class Trained(NamedTuple):
    """A training as it was noted.

    Args:
        run: its settings.
        store: where its features are.
    """

    run: Run
    store: str

    def store_or(self, other: str) -> str:
        """Its store if that can be reached from here, else another."""
        return self.store if files.exists(self.store) else other


def trained_run(runs: str, name: str, here: Run | None) -> Trained | None:
    """A training's settings, weights included, with the actors and workers of another run; None if none are noted.

    Settings of a model are the model's own, from whatever training it is.

    Args:
        runs: where models are.
        name: from :func:`run_name`.
        here: whose pools are used; those of the training if not given.

    Raises:
        ValueError: the note or a model's description is of another version of this program.
    """
    note = _read_note(runs, name)
    if "settings" not in note:
        return None
    try:
        known: dict[str, str] = note["systems"]
        systems = note["settings"]["systems"]
        if not known.keys() <= set(systems):  # an earlier training of this name had others, too
            systems = [system for system in SYSTEMS if system in known or system in systems]
        settings = {**note["settings"], "systems": systems}
        kind = run_class(settings)
        fields = kind.fields_of_systems()
        for system, mark in known.items():
            own = json.loads(files.read(files.join(runs, system, mark, "model.json")))["settings"]
            pretrained = note["settings"][fields[system]]
            kept = {name: pretrained[name] for name in ("weights", "revision") if name in own}
            settings[fields[system]] = own | kept
        run: Run = from_plain(kind, settings)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        path = files.join(runs, f"{name}.json")
        raise ValueError(f"{path} describes no training of this version ({error}); train again") from error
    if here is not None:
        pools = {f"{stage}.{f.name}" for stage in here.stages() for f in dataclasses.fields(Stage)}
        run = with_settings(run, {path: setting(here, path) for path in pools})
        run = dataclasses.replace(run, workers=here.workers, inference=here.inference)
    return Trained(run, str(note["store"]))


def run_class(settings: Mapping[str, Any]) -> type[Run]:
    """Class of a run that has some settings: the first that has them all, of those that modalities bring."""
    kinds: list[type[Run]] = [Run, *(modality.run for modality in MODALITIES.values())]
    return next((kind for kind in kinds if settings.keys() <= {f.name for f in dataclasses.fields(kind)}), Run)


def run_names(runs: str) -> list[str]:
    """Names of the trainings that a folder has notes of."""
    return [name.removesuffix(".json") for name, _, _ in files.walk(runs) if "/" not in name and name[-5:] == ".json"]


def best(path: str, run: Run) -> Run:
    """A run with what a search found.

    Args:
        path: ``best.json`` of a search, as jobs/tune.py writes it.
        run: of the recipe that was searched; other flags of its systems' settings are overridden.

    Raises:
        ValueError: the file is none, or of another recipe.
    """
    try:
        note = json.loads(files.read(path))
        recipe, name, systems, settings = (note[key] for key in ("recipe", "name", "systems", "settings"))
        changes = {**settings, "name": name, "systems": systems}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no best.json of jobs/tune.py: {error}") from error
    if recipe != run.name:
        raise ValueError(f"{path} is of recipe {recipe}, not of {run.name}")
    return with_settings(run, changes)
