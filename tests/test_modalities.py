"""The list of modalities."""

import subprocess
import sys
from dataclasses import fields

from affect.modalities import KINDS, MODALITIES, SYSTEMS, recipes
from affect.settings.run import Run


def test_records_agree_with_the_settings_of_a_run():
    assert tuple(MODALITIES) == Run.all_modalities()
    assert list(SYSTEMS) == list(Run.fields_of_systems())
    assert set(KINDS) == set(Run.stages())
    names = {f.name for f in fields(Run)}
    for name, system in SYSTEMS.items():
        assert system.name == system.model.system == name  # type: ignore[attr-defined]
        assert all(path.partition(".")[0] in names for path in (*system.space, *system.demo_space))
    for position, (name, modality) in enumerate(MODALITIES.items()):
        assert modality.name == name and set(modality.model.needs) <= {*list(MODALITIES)[:position], name}
    assert set(recipes()) >= {"demo", "raav", "dcmmoe"}


def test_the_list_is_read_without_torch():
    """Command lines answer at once, and actors that decode sound start without it."""
    assert loaded_by("affect.console.arguments", "affect.plan.clips") == set()


def test_a_job_loads_what_it_runs():
    """Every job, and workers of Ray that read the graph, start in a second or two instead of seven."""
    assert loaded_by("affect.pipeline.extract") == set()
    assert loaded_by("affect.pipeline.train") == {"torch"}


def loaded_by(*modules: str) -> set[str]:
    """Packages among torch and transformers that are imported with modules, in a process of its own."""
    code = f"import sys, {', '.join(modules)}; print(*({{'torch', 'transformers'}} & set(sys.modules)))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
