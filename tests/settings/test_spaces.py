"""What a search may change: every value is seen to be possible before anything starts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from affect.modalities import SYSTEMS
from affect.settings import recipes
from affect.settings.paths import setting, with_settings
from affect.settings.run import Run
from affect.settings.spaces import Range, check, parse
from affect.trained.runs import with_best


@pytest.fixture
def run() -> Run:
    return recipes.demo()


def test_settings_are_changed_all_at_once_by_their_paths(run: Run):
    changed = with_settings(run, {"dcmmoe.hidden": 24, "dcmmoe.heads": 3, "dcmmoe.fit.learning_rate": 1, "name": "x"})
    assert (changed.dcmmoe.hidden, changed.dcmmoe.heads, changed.dcmmoe.fit.learning_rate) == (24, 3, 1.0)
    assert isinstance(changed.dcmmoe.fit.learning_rate, float)  # 1 and 1.0 have one address
    assert changed.dcmmoe.layers == run.dcmmoe.layers and changed.raav == run.raav and changed.name == "x"
    assert with_settings(run, {"dcmmoe.fit.clip_norm": None, "dcmmoe.modalities": ["face", "audio"]}).dcmmoe == replace(
        run.dcmmoe, modalities=("face", "audio"), fit=replace(run.dcmmoe.fit, clip_norm=None)
    )
    assert with_settings(run, {}) == run
    assert setting(run, "wavlm.fit.loss.error_weight") == run.wavlm.fit.loss.error_weight


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("dcmmoe.hiden", 3, r"dcmmoe\.hiden: Dcmmoe has no setting hiden"),
        ("dcmmoe.hidden.deeper", 3, "int has no setting deeper"),
        ("nothing", 3, "Run has no setting nothing"),
        ("dcmmoe.hidden", 0, "hidden is 0, it has to be > 0"),
        ("dcmmoe.hidden", 30, "hidden 30 is no multiple of heads 4"),
        ("dcmmoe.hidden", "x", "hidden cannot be 'x', it is int"),
        ("dcmmoe.hidden", 1.5, "hidden cannot be 1.5"),
        ("dcmmoe.hidden", True, "hidden cannot be True"),
        ("raav.positions", 1, "positions cannot be 1, it is bool"),
        ("raav.fit.precision", "float8", "precision cannot be 'float8'"),
        ("dcmmoe", 3, "dcmmoe cannot be 3"),
        ("dcmmoe.modalities", ["face", "smell"], "modalities cannot be 'smell'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(run: Run, path: str, value: object, message: str):
    with pytest.raises(ValueError, match=message):
        with_settings(run, {path: value})


def of(run: Run, system: str) -> Run:
    """A run whose last system is searched."""
    return replace(run, systems=(*run.reads(system), system))


@pytest.mark.parametrize("system", [name for name, system in SYSTEMS.items() if not system.solved])
def test_every_space_of_ours_can_be_and_holds_the_recipes_own_values(system: str):
    for run, own in (
        (recipes.raav(), SYSTEMS[system].space),
        (recipes.dcmmoe(), SYSTEMS[system].space),
        (recipes.demo(), SYSTEMS[system].demo_space),
    ):
        space = check(own, of(run, system))
        for path, values in space.items():
            value = setting(run, path)
            assert values.low <= value <= values.high if isinstance(values, Range) else value == values[0]


def test_a_system_that_is_solved_has_nothing_to_search():
    with pytest.raises(ValueError, match="the space of linear is empty"):
        check(SYSTEMS["linear"].space, recipes.public())


def test_a_space_is_read_from_words(run: Run):
    words = [
        "dcmmoe.hidden=16,64,16",
        "dcmmoe.fit.learning-rate=1e-4..1e-2",
        "dcmmoe.dropout=0,0.1",
        "dcmmoe.fit.clip_norm=None,1",
    ]
    space = parse(words)
    assert space["dcmmoe.fit.learning_rate"] == Range(1e-4, 1e-2)
    checked = check(space, of(run, "dcmmoe"))
    assert checked == {  # its own come first, each value once and of its setting's kind
        "dcmmoe.hidden": (32, 16, 64),
        "dcmmoe.fit.learning_rate": Range(1e-4, 1e-2),
        "dcmmoe.dropout": (0.1, 0.0),
        "dcmmoe.fit.clip_norm": (None, 1.0),
    }
    assert all(type(value) is float for value in checked["dcmmoe.dropout"])
    assert parse(["raav.positions=true,False"]) == {"raav.positions": (True, False)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the space of dcmmoe is empty"),
        (["dcmmoe.hidden"], "write PATH=VALUE,VALUE or PATH=LOW..HIGH"),
        (["dcmmoe.hidden="], "write PATH=VALUE"),
        (["dcmmoe.hidden=16", "dcmmoe.hidden=32"], "dcmmoe.hidden is named twice"),
        (["dcmmoe.hidden=16,x"], "hidden cannot be 'x'"),
        (["dcmmoe.fit.learning_rate=a..b"], "have to be numbers"),
        (["dcmmoe.fit.learning_rate=1e-2..1e-4"], "no range of numbers above 0"),
        (["dcmmoe.fit.learning_rate=0..1"], "no range of numbers above 0"),
        (["dcmmoe.fit.learning_rate=1e-4..inf"], "no range of numbers above 0"),
        (["dcmmoe.fit.learning_rate=1e-3,Infinity"], "its values have to be finite"),
        (["dcmmoe.fit.learning_rate=0.1..0.2"], "leaves out 0.001, the first trial's value"),
        (["dcmmoe.hidden=16..64"], "dcmmoe.hidden is 32, not a float"),
        (["dcmmoe.dropout=0.01..3"], "dropout is 3.0"),
        # what the trials of a search of DCMMOE would not read, or what decides more than its training
        (["mamba.hidden=16,32"], "mamba.hidden cannot be searched of dcmmoe: give settings below dcmmoe"),
        (["name=a,b"], "name cannot be searched"),
        (["workers.num_cpus=1,2"], "workers.num_cpus cannot be searched"),
        (["dcmmoe.fit.max_epochs=5,400"], "dcmmoe.fit.max_epochs cannot be searched"),
        (["dcmmoe.modalities=1,2"], "dcmmoe.modalities cannot be searched"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_anything_starts(run: Run, words: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        check(parse(words), of(run, "dcmmoe"))


def test_what_decides_stored_states_or_the_filter_is_not_searched_of_audio(run: Run):
    audio = of(run, "audio")
    cached = replace(audio, wavlm=replace(audio.wavlm, cached=True))
    free, fixed = {"wavlm.trained_layers": (1, 2)}, {"wavlm.speaking.min_open_s": (1.0, 0.5)}
    assert check(free, audio) == {"wavlm.trained_layers": (2, 1)}
    for space, wrong in ((free, cached), (fixed, audio), ({"wavlm.cached": (False, True)}, audio)):
        with pytest.raises(ValueError, match="cannot be searched of audio"):
            check(space, wrong)


def test_what_a_search_found_is_a_run_of_its_recipe(run: Run, tmp_path: Path):
    note = {"recipe": "demo", "name": "demo-x", "systems": ["face", "behavior", "audio", "raav"]}
    path = tmp_path / "best.json"
    path.write_text(json.dumps({**note, "settings": {"raav.hidden": 32}}))
    found = with_best(str(path), run)
    assert (found.name, found.systems[-1], found.raav.hidden) == ("demo-x", "raav", 32)
    with pytest.raises(ValueError, match="is of recipe demo, not of raav"):
        with_best(str(path), recipes.raav())
    for content in ("{", "[]", "{}", json.dumps({**note, "settings": [1]})):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"is no best\.json"):
            with_best(str(path), run)
