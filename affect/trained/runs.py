"""Records of trainings: RUNS/<name>.json with models, settings and store."""

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
    """Name of a recipe's training in the folder of runs."""
    return f"{recipe}-{folds}folds" if folds else recipe


def note_run(run: Run, runs: str, name: str, store: str, models: Mapping[str, str]) -> None:
    """Records a training: settings, store and models; earlier models of other systems are kept.

    Args:
        run: settings of the training.
        runs: folder of trained models.
        name: from :func:`run_name`.
        store: URI of the feature store.
        models: addresses by system.
    """
    known = {**read_run(runs, name), **models}
    absolute = {path: weights.absolute_name(setting(run, path)) for path in run.files()}
    note = {"systems": known, "store": store, "settings": dataclasses.asdict(with_settings(run, absolute))}
    files.write(files.join(runs, f"{name}.json"), json.dumps(note, indent=1).encode())


def read_run(runs: str, name: str) -> dict[str, str]:
    """Addresses of a training's models by system; empty if there is no such training.

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
    """A recorded training.

    Args:
        run: settings of the training.
        store: URI of its feature store.
    """

    run: Run
    store: str

    def store_or(self, other: str) -> str:
        """URI of its store if that exists on this machine, else ``other``."""
        return self.store if files.exists(self.store) else other


def trained_run(runs: str, name: str, pools_of: Run | None) -> Trained | None:
    """Settings of a training, weights included, with the actor pools of another run; None if it is not recorded.

    Each model's settings come from its ``model.json``, since it may be older than the latest training of this name.

    Args:
        runs: folder of trained models.
        name: from :func:`run_name`.
        pools_of: run whose actor pools and workers are used; those of the training if None.

    Raises:
        ValueError: another version of this program wrote the record or a model's description.
    """
    note = _read_note(runs, name)
    if "settings" not in note:
        return None
    try:
        known: dict[str, str] = note["systems"]
        systems = note["settings"]["systems"]
        if not known.keys() <= set(systems):  # models of earlier trainings of this name
            systems = [system for system in SYSTEMS if system in known or system in systems]
        settings = {**note["settings"], "systems": systems}
        kind = run_class(settings)
        fields = kind.fields_of_systems()
        for system, mark in known.items():
            of_model = json.loads(files.read(files.join(runs, system, mark, "model.json")))["settings"]
            pretrained = note["settings"][fields[system]]
            kept = {name: pretrained[name] for name in ("weights", "revision") if name in of_model}
            settings[fields[system]] = of_model | kept
        run: Run = from_plain(kind, settings)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        path = files.join(runs, f"{name}.json")
        raise ValueError(f"{path} describes no training of this version ({error}); train again") from error
    if pools_of is not None:
        pools = {f"{stage}.{f.name}" for stage in pools_of.stages() for f in dataclasses.fields(Stage)}
        run = with_settings(run, {path: setting(pools_of, path) for path in pools})
        run = dataclasses.replace(run, workers=pools_of.workers, inference=pools_of.inference)
    return Trained(run, str(note["store"]))


def run_class(settings: Mapping[str, Any]) -> type[Run]:
    """First run class, of :class:`Run` and the modalities' own, that has all fields of the settings."""
    kinds: list[type[Run]] = [Run, *(modality.run for modality in MODALITIES.values())]
    return next((kind for kind in kinds if settings.keys() <= {f.name for f in dataclasses.fields(kind)}), Run)


def run_names(runs: str) -> list[str]:
    """Names of the trainings recorded in a folder."""
    return [name.removesuffix(".json") for name, _, _ in files.walk(runs) if "/" not in name and name[-5:] == ".json"]


def with_best(path: str, run: Run) -> Run:
    """Run with the best settings of a search.

    Args:
        path: ``best.json`` of a search, written by jobs/tune.py.
        run: run of the searched recipe; its settings of the searched systems are overridden.

    Raises:
        ValueError: the file is not a ``best.json``, or of another recipe.
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
