"""Every README: links resolve, commands parse against the jobs' own parsers, every file of a room is named."""

import re
import shlex
from itertools import chain
from pathlib import Path

import pytest

import jobs.evaluate
import jobs.extract
import jobs.predict
import jobs.train
import jobs.tune
from affect.console.arguments import VERBOSE, parse

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    chain(ROOT.glob("*.md"), *((ROOT / top).rglob("*.md") for top in ("affect", "jobs", "cluster", "tests", "docs")))
)
FOLDERS = sorted({path.parent for top in ("affect", "jobs") for path in (ROOT / top).rglob("*.py")})
JOBS = {
    "extract": (jobs.extract.Extract, {}),
    "train": (jobs.train.Train, {"grada": jobs.train.grada}),
    "tune": (jobs.tune.Tune, {}),
    "predict": (jobs.predict.Predict, {}),
    "evaluate": (jobs.evaluate.Evaluate, {}),
}
PLACEHOLDERS = {"RECIPE": "raav", "PART": "encoder", "VIDEO:CLIP": "video:0"}
"""Words of a page that stand for one of a few values; others, such as STORE, are valid as they are."""
MAX_LINES, MAX_LENGTH = 150, 120


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code(text: str) -> list[str]:
    """Lines of a page's indented code, continued lines joined; code of a list item is indented by six."""
    joined = re.sub(r" *\\\n +", " ", text)
    return [line.strip() for line in joined.splitlines() if line.startswith("    ")]


def spans(text: str) -> list[str]:
    """Inline code that is a whole command: a job with a recipe and flags, a benchmark's part, a make target."""
    found = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in found if re.match(r"(python jobs/\S+\.py|affect-\w+) \S|make \S+$", span)]


def prose(text: str) -> str:
    """A page without code, whose brackets are no links."""
    kept = [line for line in text.splitlines() if not line.startswith("    ")]
    return re.sub(r"`[^`\n]*`", "", "\n".join(kept))


def anchors(text: str) -> set[str]:
    """Anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Targets of links and pictures that are no URLs."""
    found = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", prose(text))
    return [target for pair in found for target in pair if target and "://" not in target]


def broken(page: Path) -> list[str]:
    """Links of a page to a file, folder or heading that does not exist."""
    result = []
    for target in links(page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            result.append(target)
    return result


def commands(text: str) -> list[str]:
    """Commands of a page: ``x && y`` are two; comments and variables before a command are left out."""
    result = []
    for line in (*code(text), *spans(text)):
        if not re.match(r"(\$ )?(\w+=\S+ )*(python \S+\.py|ray job submit|affect-\w+|make)\b", line):
            continue
        for part in line.removeprefix("$ ").split(" && "):
            words = shlex.split(part, comments=True)
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            if words[:3] == ["ray", "job", "submit"] and "--" in words:
                words = words[words.index("--") + 1 :]
            if words and "..." not in words:
                result.append(shlex.join(words))
    return result


def check(command: str) -> None:
    """Parses a job's command line; sees that scripts, benchmarks and make targets exist.

    Raises:
        SystemExit: a flag is unknown or has a value that it cannot have.
        ValueError: there is no such recipe.
        AssertionError: there is no such script, part or target.
    """
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    first, rest = words[0], words[1:]
    if first == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets), command
    if first == "python" and rest and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).exists(), command
        first, rest = rest[0], rest[1:]
    if first == "jobs/benchmark.py":
        described = (ROOT / first).read_text().split('"""')[1]
        assert re.search(rf"^{re.escape(rest[0])} {{2,}}", described, re.MULTILINE), command
    found = re.fullmatch(r"jobs/(\w+)\.py|affect-(\w+)", first)
    if found and (job := found[1] or found[2]) in JOBS:
        kind, others = JOBS[job]
        parse(kind, [word for word in rest if word not in VERBOSE], others)
    elif found:
        assert (ROOT / "jobs" / f"{found[1] or found[2]}.py").exists(), command


COMMANDS = sorted({(name(page), command) for page in PAGES for command in commands(page.read_text())})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path):
    assert not broken(page)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_parse(page: str, command: str):
    if {"--help", "--help-all"} & set(shlex.split(command)):
        with pytest.raises(SystemExit) as end:
            check(command)
        assert end.value.code == 0
    else:
        check(command)


def test_the_commands_are_found():
    found = {command.split()[1] for _, command in COMMANDS if command.startswith("python jobs/")}
    assert {f"jobs/{job}.py" for job in (*JOBS, "benchmark")} <= found and len(COMMANDS) > 60


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_every_file_is_named_beside_it(folder: Path):
    text = (folder / "README.md").read_text()
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert not {file for file in files if f"`{file}`" not in text}


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_every_file_of_a_table_exists(folder: Path):
    rows = re.findall(r"^\| (`[\w.]+`(?:, `[\w.]+`)*) \|", (folder / "README.md").read_text(), re.MULTILINE)
    named = {file for row in rows for file in re.findall(r"`(\w+\.py)`", row)}
    assert not {file for file in named if not (folder / file).exists()}


def test_the_first_page_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert not [line for line in lines if len(line) > MAX_LENGTH]


@pytest.mark.parametrize(
    "command",
    [
        "python jobs/extract.py demo --vidoes V",
        "affect-train demo --face.num-gpu 1",
        "python jobs/train.py rav",
        "python jobs/evaluat.py demo",
        "python jobs/benchmark.py nothing",
        "make nothing",
        "python jobs/tune.py demo --system nobody",
    ],
)
def test_a_wrong_command_is_found(command: str):
    with pytest.raises((SystemExit, ValueError, AssertionError)) as error:
        check(command)
    assert not isinstance(error.value, SystemExit) or error.value.code == 2


def test_a_wrong_link_is_found(tmp_path: Path):
    page = tmp_path / "README.md"
    page.write_text(
        "# A heading\n\n[a](#a-heading) [b](#b) [c](README.md) [d](none.md) `[e](code.md)`\n\n    [f](code.md)\n"
    )
    assert broken(page) == ["#b", "none.md"]


def identifiers(text: str) -> set[str]:
    """Names of classes, attributes of classes and constants in inline code."""
    found = re.findall(r"`([A-Z]\w+(?:\.\w+)*)`", text)
    return {word for word in found if re.search("[a-z]", word) or "_" in word}


def test_identifiers_exist_in_the_code():
    """A page that names a class or a constant which is gone sends its reader nowhere."""
    sources = chain(*((ROOT / top).rglob("*.py") for top in ("affect", "jobs", "tests")), [ROOT / "Makefile"])
    known = set(re.findall(r"\w+", "\n".join(path.read_text() for path in sources if path != Path(__file__))))
    for page in PAGES:
        missing = {word for word in identifiers(page.read_text()) if not set(word.split(".")) <= known}
        assert not missing, f"{name(page)}: {missing}"
    assert identifiers("`SPACES_OF` of `Track.block_gold`, `OUT`") == {"SPACES_OF", "Track.block_gold"}
