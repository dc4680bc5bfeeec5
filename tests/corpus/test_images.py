"""Manifests of labelled pictures, and reading one picture."""

import io
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from affect.corpus.images import MAX_IMAGES, ImageError, Images, read_image, read_manifest
from affect.settings.names import EXPRESSIONS

COLUMNS = ("path", "dataset", "expression", "valence", "arousal", "box", "person")
TYPES = {name: pa.float64() if name in ("valence", "arousal") else pa.string() for name in COLUMNS}
SCHEMA = pa.schema(list(TYPES.items()))
FULL = {
    "path": "a.png",
    "dataset": "wild",
    "expression": "anger",
    "valence": -0.5,
    "arousal": 0.25,
    "box": "1 2 11 22",
    "person": "ann",
}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """A manifest in the format that its name says."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        pyarrow.csv.write_csv(table, path)
    return str(path)


def text(folder: Path, *lines: str) -> str:
    """A CSV manifest of these lines."""
    (folder / "m.csv").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "m.csv")


def same(one: Images, other: Images) -> bool:
    """Whether two groups of pictures are equal, NaN to NaN."""
    names = (one.name, one.dataset, list(one.uris)) == (other.name, other.dataset, list(other.uris))
    arrays = [(one.box, other.box), (one.expression, other.expression), (one.gold, other.gold)]
    return names and all(np.array_equal(a, b, equal_nan=True) and a.dtype == b.dtype for a, b in arrays)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers that a text holds exactly."""
    return st.integers(round(low * 64), round(high * 64)).map(lambda n: n / 64)


@st.composite
def labelled(draw: st.DrawFn) -> dict[str, Any]:
    """A row of a manifest with one label at least."""
    expression = draw(st.none() | st.sampled_from(EXPRESSIONS))
    affect = [draw(numbers(-1, 1)) for _ in range(2)]
    if expression and draw(st.booleans()):
        affect = [draw(st.sampled_from([None, -5.0]))] * 2
    left, top, width, height = (draw(numbers(low, 300)) for low in (0, 0, 1, 1))
    box = draw(st.sampled_from([None, f"{left} {top} {left + width} {top + height}"]))
    return {
        "path": draw(st.sampled_from(["a.png", "deep/b,c.jpg", 'q"uote.png', "/abs/ä.png", "s3://bucket/c.png"])),
        "dataset": draw(st.sampled_from(["wild", "lab"])),
        "expression": expression,
        "valence": affect[0],
        "arousal": affect[1],
        "box": box,
        "person": draw(st.sampled_from([None, "ann", "007"])),
    }


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(labelled(), min_size=1, max_size=12))
def test_a_csv_and_a_parquet_manifest_are_read_alike_and_every_row_is_in_its_group_once(rows: list[dict[str, Any]]):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, other = (read_manifest(write(folder / f"m{suffix}", rows)) for suffix in (".csv", ".parquet"))
    assert len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    assert len({item.name for item in one}) == len(one)
    for item in one:
        own = [r for r in rows if (f"{r['dataset']}/{r['person']}" if r["person"] else r["dataset"]) == item.name]
        assert {r["dataset"] for r in own} == {item.dataset}
        assert len(own) == len(item.uris) == len(item.box) == len(item.expression) == len(item.gold)
        for row, uri, box, number, gold in zip(own, item.uris, item.box, item.expression, item.gold, strict=True):
            assert uri == (row["path"] if row["path"][0] == "/" or "://" in row["path"] else f"{folder}/{row['path']}")
            assert (EXPRESSIONS[number] if number >= 0 else None) == row["expression"]
            affect = [np.nan if row[name] in (None, -5.0) else row[name] for name in ("valence", "arousal")]
            assert np.array_equal(gold, affect, equal_nan=True)
            expected = [float(side) for side in row["box"].split()] if row["box"] else [np.nan] * 4
            assert np.array_equal(box, expected, equal_nan=True)
    assert sum(len(item.uris) for item in one) == len(rows)


def test_pictures_of_a_person_in_two_datasets_are_two_groups(tmp_path: Path):
    people = [("wild", "ann"), ("lab", "ann"), ("wild", None), ("wild", "ann"), ("wild", "bob")]
    rows = [FULL | {"path": f"{i}.png", "dataset": d, "person": p} for i, (d, p) in enumerate(people)]
    groups = {
        item.name: [Path(uri).name for uri in item.uris] for item in read_manifest(write(tmp_path / "m.csv", rows))
    }
    assert groups == {"wild/ann": ["0.png", "3.png"], "lab/ann": ["1.png"], "wild": ["2.png"], "wild/bob": ["4.png"]}


def test_a_large_group_comes_in_parts_of_one_name_in_order(tmp_path: Path):
    rows = [FULL | {"path": f"{i}.png", "person": None} for i in range(2 * MAX_IMAGES + 1)]
    parts = read_manifest(write(tmp_path / "m.parquet", rows))
    assert [len(part.uris) for part in parts] == [MAX_IMAGES, MAX_IMAGES, 1]
    assert {part.name for part in parts} == {"wild"}
    assert [uri for part in parts for uri in part.uris] == [f"{tmp_path}/{row['path']}" for row in rows]


def test_paths_are_relative_to_the_manifest_wherever_one_reads_it_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "m.csv", [FULL | {"path": "faces/a.png"}])
    monkeypatch.chdir(tmp_path)
    for uri in ("deep/m.csv", str(tmp_path / "deep" / "m.csv")):
        assert list(read_manifest(uri)[0].uris) == [str(tmp_path / "deep" / "faces" / "a.png")]
    assert list(read_manifest(f"file://{tmp_path}/deep/m.csv")[0].uris) == [f"file://{tmp_path}/deep/faces/a.png"]


def test_optional_columns_may_be_left_out(tmp_path: Path):
    (item,) = read_manifest(text(tmp_path, "path,dataset,expression", "007,wild,fear"))
    assert item.name == "wild" and Path(item.uris[0]).name == "007" and item.expression.tolist() == [3]
    assert np.isnan(item.box).all() and np.isnan(item.gold).all()
    (item,) = read_manifest(text(tmp_path, "dataset,arousal,path,valence", "wild,1,a.png,-1"))
    assert item.expression.tolist() == [-1] and item.gold.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("pair", [",", "-5,-5", "-5.0,-5.0", "-5,0.5", "0.5,-5"])
def test_no_valence_and_arousal_are_no_label_and_neither_with_an_expression_nor_without(pair: str, tmp_path: Path):
    header = "path,dataset,expression,valence,arousal"
    (item,) = read_manifest(text(tmp_path, header, f"a.png,wild,happiness,{pair}"))
    assert np.isnan(item.gold).all() and item.expression.tolist() == [4]
    with pytest.raises(ValueError, match=r"m\.csv row 1 \(a\.png\): it has neither an expression nor valence"):
        read_manifest(text(tmp_path, header, f"a.png,wild,,{pair}"))


def test_the_limits_of_valence_and_arousal_are_labels(tmp_path: Path):
    rows = [FULL | {"valence": v, "arousal": a} for v in (-1.0, 0.0, 1.0) for a in (-1.0, 0.0, 1.0)]
    (item,) = read_manifest(write(tmp_path / "m.parquet", rows))
    assert item.gold.tolist() == [[row["valence"], row["arousal"]] for row in rows]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": None}, "path and dataset have to be given"),
        ({"dataset": None}, "path and dataset have to be given"),
        ({"expression": "Anger"}, "expression 'Anger' is none of neutral, anger, "),
        ({"expression": "contempt"}, "expression 'contempt' is none of neutral, anger, "),
        ({"valence": 1.01}, "valence 1.01 and arousal 0.25 have to be in [-1, 1]"),
        ({"arousal": -4.0}, "valence -0.5 and arousal -4.0 have to be in [-1, 1]"),
        ({"arousal": float("inf")}, "valence -0.5 and arousal inf have to be in [-1, 1]"),
        ({"expression": None, "valence": None}, "one without the other"),
        ({"expression": None, "arousal": float("nan")}, "one without the other"),
        ({"box": "1 2 3"}, "box '1 2 3' is no left, top, right, bottom"),
        ({"box": "1 2 3 4 5"}, "box '1 2 3 4 5' is no left, top, right, bottom"),
        ({"box": "5 2 5 4"}, "box '5 2 5 4' is no left, top, right, bottom"),
        ({"box": "1 9 3 4"}, "box '1 9 3 4' is no left, top, right, bottom"),
        ({"box": "1,2,3,4"}, "'1,2,3,4'"),
        ({"box": "one 2 3 4"}, "'one'"),
    ],
)
def test_an_impossible_row_is_an_error_that_names_file_row_and_what_is_wrong(
    change: dict[str, Any], message: str, suffix: str, tmp_path: Path
):
    uri = write(tmp_path / f"m{suffix}", [FULL, FULL | change, FULL])
    with pytest.raises(ValueError) as raised:
        read_manifest(uri)
    assert str(raised.value).startswith(f"{uri} row 2 ({(FULL | change)['path']}): ") and message in str(raised.value)


def test_a_word_for_a_number_is_an_error_that_names_file_row_and_word(tmp_path: Path):
    uri = text(tmp_path, "path,dataset,valence,arousal", "a.png,wild,0.5,0.5", "b.png,wild,high,0.5")
    with pytest.raises(ValueError, match=r"m\.csv row 2 \(b\.png\): .*'high'"):
        read_manifest(uri)


@pytest.mark.parametrize(
    ("header", "wrong"),
    [
        ("dataset,expression", ["path"]),
        ("path,expression", ["dataset"]),
        ("file,set,expression", ["dataset", "file", "path", "set"]),
        ("path,dataset,expression,colour", ["colour"]),
        ("path,dataset,Expression", ["Expression"]),
    ],
)
def test_a_missing_or_unknown_column_is_an_error_that_names_file_and_columns(
    header: str, wrong: list[str], tmp_path: Path
):
    with pytest.raises(ValueError) as raised:
        read_manifest(text(tmp_path, header, ",".join("x" for _ in header.split(","))))
    assert str(raised.value).startswith(f"{tmp_path}/m.csv: columns have to be ")
    assert str(raised.value).endswith(f"look at {wrong}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", b""),
        ("m.csv", b"path,dataset,expression\na.png,wild\n"),
        ("m.csv", "path,dataset,expression\né.png,wild,fear\n".encode("latin-1")),
        ("m.parquet", b""),
        ("m.parquet", b"path,dataset,expression\na.png,wild,fear\n"),
    ],
)
def test_a_file_that_is_no_table_is_an_error_that_names_it(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no manifest: "):
        read_manifest(str(tmp_path / name))


@settings(deadline=None)
@given(size=st.integers(0, 20), data=st.data())
def test_cut_parts_laid_end_to_end_are_the_whole(size: int, data: st.DataObject):
    rng = np.random.default_rng(size)
    whole = Images(
        name="wild/ann",
        dataset="wild",
        uris=[f"{i}.png" for i in range(size)],
        box=rng.uniform(size=(size, 4)),
        expression=rng.integers(-1, 8, size),
        gold=rng.uniform(-1, 1, size=(size, 2)),
    )
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, size), max_size=3))), size]
    parts = [whole.cut(start, end) for start, end in itertools.pairwise(edges)]
    assert [len(part.uris) for part in parts] == np.diff(edges).tolist()
    assert {(part.name, part.dataset) for part in parts} == {("wild/ann", "wild")}
    assert [uri for part in parts for uri in part.uris] == whole.uris
    for name in ("box", "expression", "gold"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def noise(height: int, width: int, channels: int) -> np.ndarray:
    """A picture in which no two pixels are likely alike."""
    return np.random.default_rng(0).integers(0, 256, size=(height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tif"])
def test_a_picture_is_read_as_it_was_written(name: str, tmp_path: Path):
    rgb = noise(6, 9, 3)
    Image.fromarray(rgb).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    read = read_image(str(tmp_path / name))
    assert read.dtype == np.uint8 and np.array_equal(read, rgb)
    assert np.array_equal(read_image(f"file://{tmp_path}/{name}"), rgb)


TURNED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}
"""How a camera stores an upright picture, by the orientation that it notes beside it."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_stored_on_its_side_is_read_upright(name: str, orientation: int, tmp_path: Path):
    upright = noise(3, 5, 3).repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNED[orientation](upright)))
    stored.save(tmp_path / name, exif=exif, **({"quality": 100, "subsampling": 0} if name == "a.jpg" else {}))
    read = read_image(str(tmp_path / name))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() <= (8 if name == "a.jpg" else 0)


def test_grey_and_transparent_and_palette_pictures_become_rgb(tmp_path: Path):
    rgb, grey = noise(6, 9, 3), noise(6, 9, 1)[..., 0]
    alpha = np.concatenate([rgb, np.full((6, 9, 1), 255, np.uint8)], axis=2)
    few = Image.fromarray(rgb).quantize(16)
    pictures = {
        "L": (Image.fromarray(grey), grey[..., None].repeat(3, axis=2)),
        "LA": (Image.fromarray(grey).convert("LA"), grey[..., None].repeat(3, axis=2)),
        "RGBA": (Image.fromarray(alpha), rgb),
        "P": (few, np.array(few.convert("RGB"))),
        "1": (Image.fromarray(grey > 127), np.where(grey[..., None] > 127, 255, 0).repeat(3, axis=2)),
    }
    for mode, (picture, expected) in pictures.items():
        assert picture.mode == mode
        picture.save(tmp_path / "a.png")
        read = read_image(str(tmp_path / "a.png"))
        assert read.dtype == np.uint8 and np.array_equal(read, expected), mode


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_a_palette_with_transparent_colours_becomes_rgb(tmp_path: Path):
    few = Image.fromarray(noise(6, 9, 3)).quantize(4)
    few.save(tmp_path / "a.png", transparency=b"\x00\x10\x20\x30")
    assert np.array_equal(read_image(str(tmp_path / "a.png")), np.array(few.convert("RGB")))


def encoded(kind: str) -> bytes:
    """A picture's file."""
    content = io.BytesIO()
    Image.fromarray(noise(24, 24, 3)).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_picture_is_an_error_that_names_it(kind: str, tmp_path: Path):
    whole, path = encoded(kind), tmp_path / "a.picture"
    for share in (0.0, 0.01, 0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=r"a\.picture: "):
            read_image(str(path))
    path.write_bytes(whole)
    assert read_image(str(path)).shape == (24, 24, 3)


@pytest.mark.filterwarnings("ignore")  # Pillow says what else it finds odd
@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), data=st.data())
def test_a_damaged_picture_is_read_somehow_or_is_an_image_error(kind: str, data: st.DataObject):
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            read = read_image(file.name)
        except ImageError as error:
            assert file.name in str(error)
        else:
            assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3


@pytest.mark.parametrize(
    "content", [b"", b"path,dataset\n", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n", bytes(1000)]
)
def test_a_file_that_is_no_picture_is_an_error_that_names_it(content: bytes, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: "):
        read_image(str(tmp_path / "a.png"))


def test_a_missing_picture_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(ImageError, match=r"gone\.png: "):
        read_image(str(tmp_path / "gone.png"))


def test_a_disk_that_refuses_is_not_the_pictures_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(uri: str) -> bytes:
        raise PermissionError(13, "Permission denied", uri)

    monkeypatch.setattr("affect.corpus.images.files.read", refuse)
    with pytest.raises(PermissionError):
        read_image(str(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_person_may_have_any_name(suffix: str, tmp_path: Path):
    rows = [{"path": "a.png", "dataset": "d", "expression": "anger", "person": name} for name in ("NA", "null", "0")]
    table, path = pa.Table.from_pylist(rows), tmp_path / f"m{suffix}"
    (pyarrow.parquet.write_table if suffix == ".parquet" else pyarrow.csv.write_csv)(table, path)
    assert [item.name for item in read_manifest(str(path))] == ["d/NA", "d/null", "d/0"]


def test_sixteen_bits_are_cut_to_eight_and_pixels_without_a_range_are_refused(tmp_path: Path):
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (read_image(str(tmp_path / "a.png")) == np.array([0, 1, 128, 255])[None, :, None]).all()
    Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: pixels of 32 bits"):
        read_image(str(tmp_path / "a.tif"))


def test_a_folder_is_no_picture(tmp_path: Path):
    with pytest.raises(ImageError):
        read_image(str(tmp_path))


@pytest.mark.parametrize("box", ["nan 0 10 10", "0 0 inf 10", "1 2 3", "5 5 5 9"])
def test_a_box_that_is_none_is_an_error(box: str, tmp_path: Path):
    path = tmp_path / "m.csv"
    path.write_text(f"path,dataset,expression,box\na.png,d,anger,{box}\n")
    with pytest.raises(ValueError, match=r"row 1 \(a\.png\): box"):
        read_manifest(str(path))


def test_a_box_in_parquet_may_be_a_list(tmp_path: Path):
    table = pa.table({"path": ["a.png"], "dataset": ["d"], "expression": ["anger"], "box": [[1, 2, 30, 40]]})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    assert read_manifest(str(tmp_path / "m.parquet"))[0].box.tolist() == [[1, 2, 30, 40]]
