"""A tiny frame encoder's run, and generated pictures of people whose colours show what they feel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from PIL import Image

from affect.corpus.images import Images
from affect.settings.encoder import CropAugment, EncoderRun, GradaShape
from affect.settings.training import Fit, Loss, Workers

SIDE = 24
"""Pixels of a picture's side."""
NO_AUGMENT = CropAugment(
    mirror=0.0,
    turn_deg=0.0,
    scale=0.0,
    shift=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    grey=0.0,
    erase=0.0,
)
RUN = EncoderRun(
    name="tiny",
    shape=GradaShape(width=0.1, depth=0.1, embedding=8, crop_px=SIDE),
    trunk_learning_rate=1e-2,
    augment=replace(NO_AUGMENT, mirror=0.5),
    fit=Fit(
        learning_rate=1e-2,
        batch_size=8,
        max_epochs=12,
        stop_patience=12,
        clip_norm=1.0,
        loss=Loss(ccc_over="batch", error_weight=1.0, min_points=4),
    ),
    workers=Workers(loader_cpus=0.25),
)


@dataclass(frozen=True)
class Pictures:
    """Manifests of the generated pictures.

    Args:
        wild: four people, labelled with valence and arousal; two pictures of each also with an expression.
        lab: two people, labelled with expressions.
        development: two other people, labelled with both.
        held_out: three more people, labelled with both.
    """

    wild: str
    lab: str
    development: str
    held_out: str


def draw_people(folder: Path, name: str, people: Sequence[str], labels: str, seed: int) -> str:
    """Draws eight pictures of each person, red for valence and blue for arousal on the person's noise; their manifest.

    Args:
        folder: gets the pictures.
        name: the manifest's file; its first part is the dataset.
        people: their names.
        labels: ``affect``, ``expression`` or ``both``.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for person in people:
        skin = rng.integers(0, 60, size=(SIDE, SIDE, 3))
        for number in range(8):
            valence, arousal = rng.uniform(-1, 1, 2).round(3).tolist()
            feeling = "happiness" if valence > 0.3 else "sadness" if valence < -0.3 else "neutral"
            color = 95 + 95 * np.array([valence, 0.0, arousal])
            path = f"{person}_{number}.png"
            Image.fromarray((skin + color).clip(0, 255).astype(np.uint8)).save(folder / path)
            has_affect = labels == "both" or (labels == "affect" and number < 7)
            has_expression = labels != "affect" or number >= 6
            rows.append(
                {
                    "path": path,
                    "dataset": name.partition(".")[0],
                    "expression": feeling if has_expression else None,
                    "valence": valence if has_affect else None,
                    "arousal": arousal if has_affect else None,
                    "person": person,
                }
            )
    table, path = pa.Table.from_pylist(rows), folder / name
    (pyarrow.parquet.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv)(table, path)
    return str(path)


def make_pictures(folder: Path) -> Pictures:
    """Six people of two datasets to learn from: one labelled with valence and arousal, one with expressions."""
    return Pictures(
        wild=draw_people(folder, "wild.csv", ["ann", "bob", "cem", "dee"], "affect", 0),
        lab=draw_people(folder, "lab.parquet", ["eva", "fay"], "expression", 1),
        development=draw_people(folder, "development.csv", ["gus", "hal"], "both", 2),
        held_out=draw_people(folder, "unseen.parquet", ["ida", "jon", "kim"], "both", 3),
    )


def group(uris: Sequence[str], gold: Sequence[Sequence[float]], expression: Sequence[int], name: str = "d/p") -> Images:
    """Pictures of one person without boxes."""
    return Images(
        name=name,
        dataset=name.partition("/")[0],
        uris=list(uris),
        box=np.full((len(uris), 4), np.nan),
        expression=np.array(expression, dtype=np.int64),
        gold=np.array(gold, dtype=np.float64).reshape(-1, 2),
    )
