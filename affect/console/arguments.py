"""Command lines of jobs: a recipe, then every setting as a flag; a short help and a full one."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, replace
from typing import Annotated, Any, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from affect.modalities import recipes
from affect.settings.recipes import Places
from affect.settings.run import Run
from affect.trained.runs import run_name, trained_run

VERBOSE = ("-v", "--verbose")
HELP = ("-h", "--help", "--help-all")
_SWITCH: Any = tyro.conf.FlagCreatePairsOff[bool]
_SHORT: Any = Annotated[_SWITCH, tyro.conf.arg(aliases=("-v",), help_behavior_hint="")]
_LONG: Any = Annotated[_SWITCH, tyro.conf.arg(help_behavior_hint="")]
COMMON_FLAGS = (
    StructFieldSpec("verbose", _SHORT, False, "Show tracebacks of errors."),
    StructFieldSpec("help_all", _LONG, False, "List all settings as well: each is a flag, named by its path."),
)
"""Flags of every job, listed in its help; they are removed from the command line before parsing."""


def parse(
    job: type,
    arguments: list[str],
    other_recipes: Mapping[str, Any],
    *,
    trained: bool = False,
    unlisted: Collection[str] = (),
) -> Any:  # noqa: ANN401 -- a job
    """Parses a command line; an empty one prints usage with an example.

    Args:
        job: dataclass with a field ``run`` and flags of the job. A field without a default has the name of a field of
            :class:`affect.settings.recipes.Places` and gets the recipe's value.
        arguments: the command line, without :data:`VERBOSE`.
        other_recipes: recipes outside :func:`affect.modalities.recipes`: instances with the defaults of flags.
        trained: whether settings default to those of the trained models in ``runs``.
        unlisted: names of flags that no help lists.

    Returns:
        An instance of ``job``, or of the class of another recipe.

    Raises:
        ValueError: there is no such recipe.
    """
    defaults = {name: (_first_line(type(other)), other) for name, other in other_recipes.items()}
    for name, (recipe, places) in recipes().items():
        defaults[name] = (_first_line(recipe), _with_places(job, recipe(), places()))
    first = arguments[0] if arguments else "--help"
    if first not in defaults and first not in HELP:
        near = difflib.get_close_matches(first, defaults, 1)
        problem = f"there is no recipe {first!r}" if first[:1] != "-" else f"name a recipe before {first}"
        raise ValueError(f"{problem}: {f'did you mean {near[0]}?' if near else 'one of ' + ', '.join(defaults)}")
    if trained and first in recipes():
        defaults[first] = (defaults[first][0], _as_trained(defaults[first][1], arguments[1:]))
    example = f"Example: {program()} {next(iter(recipes()))}"
    description = (
        f"{job.__doc__} RECIPE --help lists its flags, --help-all all settings, too; -v shows tracebacks.\n\n{example}"
    )
    flags = ["--help" if flag in HELP else flag for flag in arguments or ["--help"]]
    listing = _listing(unlisted if "--help-all" in arguments else ("run",)) if "--help" in flags else None
    return tyro.extras.overridable_config_cli(defaults, args=flags, description=description, registry=listing)


def _first_line(described: Any) -> str:  # noqa: ANN401 -- a function or a class
    return (described.__doc__ or "").splitlines()[0]


def _with_places(job: type, run: Run, places: Places) -> Any:  # noqa: ANN401 -- a job
    """An instance of a job with a recipe's settings and places."""
    types = get_type_hints(job)
    needed = [f.name for f in fields(job) if f.default is MISSING and f.name != "run"]
    found = {name: getattr(places, name) for name in needed}
    tuples = {name: (place,) for name, place in found.items() if get_origin(types[name]) is tuple}
    return job(run=run, **found | tuples)


def _as_trained(job: Any, flags: list[str]) -> Any:  # noqa: ANN401 -- a job
    """A job with settings and store of the training selected by its flags, if that training is recorded."""
    partial = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    partial.add_argument("--runs", default=job.runs)
    partial.add_argument("--name", default=job.run.name)
    partial.add_argument("--folds", default="0")
    given = partial.parse_known_args(flags)[0]
    if given.runs is None or not given.folds.isdecimal():
        return job
    found = trained_run(given.runs, run_name(given.name, int(given.folds)), job.run)
    if found is None:
        return job
    return replace(job, run=found.run, store=found.store_or(job.store))


def _listing(hidden: Collection[str]) -> ConstructorRegistry:
    """Parser rules that add :data:`COMMON_FLAGS` to a job and leave out hidden flags."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def listed(info: StructTypeInfo) -> StructConstructorSpec | None:
        if listed in info.markers:  # the recursive call below: continue with tyro's own rules
            return None
        spec = ConstructorRegistry.get_struct_spec(replace(info, markers=(*info.markers, listed)))
        if not isinstance(spec, StructConstructorSpec):
            return None
        before = COMMON_FLAGS if any(f.name == "run" for f in spec.fields) else ()
        return replace(spec, fields=(*before, *(f for f in spec.fields if f.name not in hidden)))

    return registry


def program() -> str:
    """Command that starts this program: ``python SCRIPT``, or the name of a console command."""
    script = sys.argv[0]
    return f"python {shlex.quote(script)}" if script.endswith(".py") else os.path.basename(script)


def command() -> str:
    """Full command line of this process, quoted for a shell."""
    return f"{program()} {shlex.join(sys.argv[1:])}"
