"""The jobs' command lines: usage, one clear line for what a user can mend, and Ray's own job submission."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import ray.data
from _pytest.capture import CaptureFixture

from affect.pipeline import job
from jobs import evaluate, extract, predict, train
from tests.conftest import Micro
from tests.jobs import LIMIT_S, wait_until

ROOT = Path(__file__).parents[1]
Run = Callable[..., tuple[int, str, str]]

MAIN = {"extract": extract.main, "train": train.main, "predict": predict.main, "evaluate": evaluate.main}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]) -> Run:
    """Run a job as its command line does, in this process: exit code, stdout, stderr."""

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            MAIN[name]()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.mark.parametrize("name", MAIN)
def test_no_arguments_print_usage_with_a_runnable_example(run: Run, name: str):
    code, out, _ = run(name)
    assert code == 0 and "usage" in out.lower() and f"python jobs/{name}.py demo" in out


def test_every_setting_is_a_flag(run: Run):
    _, out, _ = run("train", "demo", "--help-all")
    for flag in ("--dcmmoe.dropout", "--raav.fit.learning-rate", "--face.num-gpus", "--workers.num-workers", "--store"):
        assert flag in out


def test_help_is_of_one_screen_and_says_where_the_rest_is(run: Run):
    for name in MAIN:
        code, out, _ = run(name, "demo", "--help")
        assert code == 0 and len(out.splitlines()) < 45 and "--help-all" in out and "--face.num-cpus" not in out
        assert "-v, --verbose" in out and "--videos" in out, name


def test_predicting_lists_no_setting_of_training(run: Run):
    _, out, _ = run("predict", "demo", "--help-all")
    assert "--face.num-gpus" in out and "--inference.num-cpus" in out and "--tracking.cut" in out
    for flag in ("--raav.fit", "--wavlm.augment", "--workers", "learning-rate"):
        assert flag not in out


@pytest.mark.parametrize("name", ["extract", "train", "predict", "evaluate", "tune", "demo", "benchmark"])
def test_every_entry_point_has_help_and_does_nothing_else(name: str, tmp_path: Path):
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0 and "usage" in done.stdout.lower() and list(tmp_path.iterdir()) == []


def test_several_videos_are_named_one_after_the_other_as_a_shell_makes_them_of_a_pattern(run: Run, micro: Micro):
    paths = sorted(str(path) for path in Path(micro.places.videos).glob("*.mp4"))
    assert len(paths) == 2
    places = ["--store", micro.places.store, "--face.weights", micro.run.face.weights]
    weights = ["--behavior.weights", micro.run.behavior.weights, "--wavlm.weights", micro.run.wavlm.weights]
    code, out, err = run("extract", "demo", "--videos", *paths, *places, *weights, "--plan")
    assert code == 0 and "plan: 2 videos" in out, err


def test_a_missing_encoder_says_that_it_is_not_published_and_what_can_be_done(run: Run, micro: Micro, tmp_path: Path):
    code, _, err = run("extract", "face", "--videos", micro.places.videos, "--store", str(tmp_path))
    said = one_line(err)
    assert code == 1 and "not been published by its authors" in said and "jobs/train.py grada" in said
    assert "--face.weights" in said and "audio, behavior" in said


def test_predicting_anywhere_needs_no_more_than_the_models(
    run: Run, trained: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    places = ["--runs", trained.places.runs, "--videos", trained.places.new_videos, "--out", str(tmp_path / "out")]
    code, out, err = run("predict", "demo", *places, "--no-report")
    assert code == 0 and "predict: 1 videos, 1 people, 50 frames" in out, err
    code, _, err = run("predict", "demo", *places, "--dcmmoe.hidden", "16")
    assert code == 1 and "trained with other dcmmoe settings" in one_line(err) and "hidden 32" in one_line(err)


def test_a_value_out_of_range_is_refused_with_its_name(run: Run):
    code, out, err = run("extract", "demo", "--face.min-confidence", "2")
    assert code != 0 and "min_confidence is 2.0" in out + err


def one_line(err: str) -> str:
    """The job's only error line."""
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in err
    return lines[0]


def test_a_missing_folder_and_one_without_videos_are_one_line(run: Run, micro: Micro, tmp_path: Path):
    store = str(tmp_path / "store")
    code, _, err = run("extract", "demo", "--videos", str(tmp_path / "nowhere"), "--store", store)
    assert code == 1 and f"{tmp_path / 'nowhere'}: no such folder" in one_line(err)
    (tmp_path / "empty").mkdir()
    code, _, err = run("extract", "demo", "--videos", str(tmp_path / "empty"), "--store", store)
    assert code == 1 and "no video in it" in one_line(err)


def test_weights_that_cannot_be_had_are_one_line(run: Run, micro: Micro, tmp_path: Path):
    weights = ["--face.weights", str(tmp_path / "no-grada"), "--behavior.weights", micro.run.behavior.weights]
    code, _, err = run("extract", "demo", "--videos", micro.places.videos, "--store", str(tmp_path), *weights)
    assert code == 1 and "no-grada" in one_line(err) and "no such folder" in one_line(err)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n0,0\n", 'the first line is "a,b"'),
        ("valence,arousal\n0,0\n1.5,0\n", "row 2 is [1.5, 0.0]"),
        ("valence,arousal\n0,zero\n", 'row 1 is "0,zero"'),
    ],
)
def test_label_files_that_are_wrong_are_one_line(run: Run, micro: Micro, tmp_path: Path, text: str, said: str):
    labels = tmp_path / "labels"
    shutil.copytree(micro.places.labels, labels)
    (labels / "Train_Set" / "video01.txt").write_text(text)
    places = ["--videos", micro.places.videos, "--store", micro.places.store, "--runs", str(tmp_path)]
    weights = ["--wavlm.weights", micro.run.wavlm.weights]
    code, _, err = run("train", "demo", "--labels", str(labels), *places, *weights)
    assert code == 1 and "Train_Set/video01.txt" in one_line(err) and said in one_line(err)


def test_predicting_without_models_says_what_to_run(run: Run, micro: Micro, tmp_path: Path):
    places = ["--runs", str(tmp_path), "--store", micro.places.store, "--out", str(tmp_path / "out")]
    code, _, err = run("predict", "demo", "--videos", micro.places.new_videos, *places)
    assert code == 1 and "train first: jobs/train.py demo --runs" in one_line(err)


def test_a_template_row_for_an_unknown_track_is_one_line(run: Run, predicted: str, tmp_path: Path):
    template = tmp_path / "template.txt"
    template.write_text("image_location,valence,arousal\nnobody/00001.jpg,,\n")
    code, _, err = run("evaluate", "demo", "--predictions", predicted, "--template", str(template), "--labels", "None")
    assert code == 1 and "nobody/00001.jpg: no prediction for track nobody" in one_line(err)


def test_evaluation_prints_a_row_per_system_and_writes_the_submission(run: Run, micro: Micro, predicted: str):
    flags = ["--predictions", predicted, "--labels", micro.places.truth, "--template", micro.places.template]
    code, out, _ = run("evaluate", "demo", *flags)
    assert code == 0
    for system in ("face", "behavior", "audio", "dcmmoe", "raav"):
        assert re.search(rf"{system}\s.*\d\.\d{{3}} \[too few videos\].*\b50\b", out), out
    assert (Path(predicted) / "submission.txt").is_file()


def test_a_person_that_nothing_is_known_of_gets_the_training_mean_and_is_named(
    run: Run, micro: Micro, predicted: str, tmp_path: Path
):
    out = tmp_path / "predictions"
    shutil.copytree(predicted, out)
    table = pq.read_table(out / "video03.parquet")
    unknown = [n for n in table.column_names if n.endswith(("valence", "arousal"))]
    for name in unknown:
        table = table.set_column(table.column_names.index(name), name, pa.nulls(table.num_rows, pa.float32()))
    pq.write_table(table, out / "video03.parquet")
    flags = ["--predictions", str(out), "--labels", "None", "--template", micro.places.template]
    code, said, _ = run("evaluate", "demo", *flags)
    mean = json.loads((out / "run.json").read_text())["training_mean"]
    assert code == 0 and f"nothing is known of track video03: it is given the training mean {mean[0]:.3f}" in said
    rows = (out / "submission.txt").read_text().splitlines()[1:]
    assert {row.split(",", 1)[1] for row in rows} == {f"{mean[0]:.6f},{mean[1]:.6f}"}


def test_all_trained_models_are_evaluated_side_by_side(run: Run, micro: Micro, predicted: str):
    places = ["--videos", micro.places.new_videos, "--store", micro.places.store, "--labels", micro.places.truth]
    weights = ["--face.weights", micro.run.face.weights, "--behavior.weights", micro.run.behavior.weights]
    weights += ["--wavlm.weights", micro.run.wavlm.weights, "--grid.clip-s", "2.0"]
    for judged in list(Path(micro.places.runs).rglob("judged")):  # the actors of this job shall say it
        shutil.rmtree(judged)
    code, out, err = run("evaluate", "demo", "--runs", micro.places.runs, "--paper", *places, *weights)
    assert code == 0, err
    assert "which nothing was trained or selected on" in out
    assert re.search(r"raav\s.*\[too few videos\].*0\.608, 0\.707, 0\.658, 0\.62", out), out
    for part in ("no late fusion", "no face", "face asks audio", "audio in all", "mean CCC of each video"):
        assert part in out
    folder = Path(micro.places.runs) / "evaluation" / "held_out"
    scores = pyarrow.csv.read_csv(folder / "scores.csv").to_pylist()
    assert {row["without"] for row in scores if row["system"] == "dcmmoe"} == {"", "face", "behavior", "audio"}
    gates = pyarrow.csv.read_csv(folder / "gates.csv").to_pylist()
    assert {row["second"] for row in gates} == set(range(5)) and {"face asks audio"} < {row["source"] for row in gates}


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A local Ray head with its job server, in a process group of its own; the environment to reach it with."""
    ports = [free_port() for _ in range(3)]
    binaries = Path(sys.executable).parent  # what an activated virtual environment puts first
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "disabled", "PATH": f"{binaries}:{os.environ['PATH']}"}
    command = [str(binaries / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [
        f"--port={ports[0]}",
        f"--dashboard-port={ports[1]}",
        f"--dashboard-agent-listen-port={ports[2]}",  # its default belongs to the session's own Ray
        "--dashboard-host=127.0.0.1",
        "--object-store-memory=200000000",
        f"--temp-dir=/tmp/affect-{ports[0]}",
    ]
    log = (tmp_path / "head.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{ports[1]}"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    try:
        wait_until(answers, process)
        yield environment | {"RAY_ADDRESS": address}
    finally:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(f"/tmp/affect-{ports[0]}", ignore_errors=True)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_job_is_submitted_as_the_readme_prints_it(head: dict[str, str]):
    command = "ray job submit --working-dir . -- python jobs/extract.py demo"
    assert command in (ROOT / "README.md").read_text()
    for _ in range(20):
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=head, capture_output=True, text=True, check=False)
        if "No available agent" not in done.stderr:
            break
        time.sleep(2)  # the head answers before its job agent has registered
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "12 of 12 clips to do" in done.stdout and "succeeded" in done.stdout.lower()


@pytest.mark.slow
def test_a_submitted_jobs_own_exit_code_is_said(head: dict[str, str], micro: Micro, tmp_path: Path):
    """Nothing is uploaded or installed; one video is broken, so the job itself ends with 3."""
    (tmp_path / "videos").mkdir()
    shutil.copy(next(Path(micro.places.videos).glob("*.mp4")), tmp_path / "videos" / "fine.mp4")
    (tmp_path / "videos" / "broken.mp4").write_text("no video")
    places = ["--videos", str(tmp_path / "videos"), "--store", str(tmp_path / "store")]
    weights = ["--face.weights", micro.run.face.weights, "--behavior.weights", micro.run.behavior.weights]
    ray_binary = str(Path(sys.executable).with_name("ray"))
    submit = [ray_binary, "job", "submit", "--submission-id", "extract-1", "--", "affect-extract", "demo"]
    for _ in range(20):
        done = subprocess.run(
            [*submit, *places, *weights], cwd=tmp_path, env=head, capture_output=True, text=True, check=False
        )
        if "No available agent" not in done.stderr:
            break
        time.sleep(2)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "units 3 ok" in said and "exit code 3" in said, said
    look = [ray_binary, "job", "status", "extract-1"]
    status = subprocess.run(look, env=head, capture_output=True, text=True, check=False)
    assert "exit code 3" in status.stdout + status.stderr
    again = subprocess.run(
        [*submit, *places, *weights], cwd=tmp_path, env=head, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1 and "extract-1 already exists" in again.stdout + again.stderr


@pytest.mark.slow
def test_ctrl_c_ends_a_job_and_says_the_command_that_goes_on(micro: Micro, local_ray: str, tmp_path: Path):
    run = micro.run
    weights = ["--face.weights", run.face.weights, "--behavior.weights", run.behavior.weights]
    places = ["--videos", micro.places.videos, "--store", str(tmp_path / "a store")]
    start = [sys.executable, "jobs/extract.py", "demo", *places, *weights, "--face.max-actors", "1"]
    start += ["--face.min-actors", "1"]
    environment = {**os.environ, "RAY_ADDRESS": local_ray, "PYTHONPATH": str(ROOT)}
    stopped = subprocess.Popen(
        start, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert stopped.stdout is not None
    assert any("clips to do" in line for line in stopped.stdout)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "Traceback" not in err
    [said] = re.findall(r"stopped; what is finished is kept. Go on with: python (.*)", err)
    again = subprocess.run(
        [sys.executable, *shlex.split(said)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 videos, units 6 ok" in again.stdout


def test_an_error_within_ray_data_is_said_by_its_own_words(run: Run, local_ray: str, monkeypatch: pytest.MonkeyPatch):
    def fail(row: dict) -> dict:
        raise ValueError(f"there is no {row['item']} here")

    def work(_: object) -> int:
        ray.data.from_items(["bread"]).map(fail).materialize()
        return 0

    monkeypatch.setitem(MAIN, "extract", job.entry(extract.Extract, work, ()))
    code, _, err = run("extract", "demo")
    assert code == 1 and one_line(err) == "error: there is no bread here (-v shows where)"


def test_an_error_is_a_line_and_with_v_a_traceback_too(run: Run, tmp_path: Path):
    code, _, err = run("extract", "demo", "--videos", str(tmp_path / "nowhere"), "--store", str(tmp_path))
    assert code == 1 and one_line(err).endswith("with --videos (-v shows where)")
    code, _, err = run("extract", "demo", "--videos", str(tmp_path / "nowhere"), "--store", str(tmp_path), "-v")
    assert code == 1 and "Traceback" in err and "error:" in err and "-v shows" not in err


def test_the_package_says_its_version_and_its_commands():
    done = subprocess.run([sys.executable, "-m", "affect", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("affect 0.1.0 (Python 3")
    for name in ("extract", "train", "tune", "predict", "evaluate", "demo"):
        assert shutil.which(f"affect-{name}", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "affect-predict")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Example: affect-predict demo" in done.stdout


def test_importing_in_the_folder_above_a_checkout_gives_the_package(tmp_path: Path):
    """Python takes the checkout's folder for it there, if it is called affect."""
    (tmp_path / "affect").symlink_to(ROOT)
    program = (
        "import affect, affect.settings.run, affect.trained.runs, affect.jobs.train; print(affect.predict.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0 and done.stdout.strip() == "predict", done.stderr
