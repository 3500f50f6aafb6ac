"""What strangers may put into a result folder: one error that names it, and no traceback."""

import json
import os
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import planted
from synthetic import synthetic_result
from synthetic_maps import POOLED, SHIFTED, SWIN, VIT, with_maps
from tracks import run

from attnprobe import cli, npz
from attnprobe.errors import ResultError
from attnprobe.results import Result, parquet
from attnprobe.tracking import Track, track

INF = float("inf")
LEGITIMATE = {
    "plain": lambda: synthetic_result(),
    "without intervals": lambda: synthetic_result(intervals=False),
    "without geometry": lambda: synthetic_result(geometry=False, tokens=()),
    "windows": lambda: synthetic_result(window=7, tokens=()),
    "one metric": lambda: synthetic_result(metrics=("entropy",)),
    "no metric": lambda: synthetic_result(metrics=("cka",)),
    "one layer, head and image": lambda: synthetic_result(layers=1, heads=1, images=1),
    "without per-image values": lambda: replace(synthetic_result(), samples={}),
    "planted": lambda: planted(
        features=np.random.default_rng(0).normal(size=(3, 12, 8)), images=12
    ),
    "maps": lambda: with_maps(synthetic_result(layers=2), [VIT, POOLED]),
    "maps of windows": lambda: with_maps(synthetic_result(layers=2), [SWIN, SHIFTED]),
    "heads by layer": lambda: by_layer(),
    "a card of nothing": lambda: replace(synthetic_result(), model={}, config={}),
    "a plug-in's table": lambda: with_table("peak", pd.DataFrame({"depth": [1.5], "word": ["a"]})),
}


def by_layer():
    """A Swin-like result: the second layer has twice the heads."""
    one, two = synthetic_result(layers=1, heads=3), synthetic_result(layers=2, heads=6)

    def joined(a, b):
        keys = [name for name in ("layer", "layer_a") if name in b.columns]
        return b if keys != ["layer"] else pd.concat([a, b[b.layer == 1]], ignore_index=True)

    tables = {name: joined(one.tables[name], two.tables[name]) for name in two.tables}
    samples = {
        name: joined(one.samples[name], table).sort_values("image", kind="stable")
        for name, table in two.samples.items()
    }
    samples = {name: frame.reset_index(drop=True) for name, frame in samples.items()}
    return replace(two, layers=two.layers.assign(heads=[3, 6]), tables=tables, samples=samples)


def with_table(name, frame):
    result = synthetic_result()
    return replace(result, tables={**result.tables, name: frame})


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_whole_results_are_read(tmp_path, kind):
    result = LEGITIMATE[kind]()
    found = Result.load(result.save(tmp_path / "run"))
    assert set(found.tables) == set(result.tables)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Files of a saved result that has everything, by relative name."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = planted(features=np.random.default_rng(0).normal(size=(2, 12, 8)), images=12)
    extra = synthetic_result(layers=2, heads=3, images=12)
    tables = {**extra.tables, **result.tables, "layer_means": extra.tables["layer_means"]}
    samples = {**result.samples, "prefix_mass": extra.samples["prefix_mass"]}
    result = replace(
        extra, tables=tables, samples=samples, arrays=result.arrays, layers=extra.layers
    )
    with_maps(result, [VIT, VIT]).save(folder)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def written(whole, folder):
    for name, content in whole.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def value(column, found):
    """Another value in the first row of a column, or `...` to leave the column out."""

    def change(frame):
        if found is ...:
            return frame.drop(columns=column)
        cells = frame[column].tolist()
        whole = isinstance(found, str | None) or isinstance(cells[0], str)
        cells = [found] * len(cells) if whole else [found, *cells[1:]]
        return frame.assign(**{column: cells})

    return change


def twice(frame):
    return pd.concat([frame, frame], ignore_index=True)


def part(name, change):
    """A changed array, or `...` to leave it out."""

    def changed(parts):
        if change is ...:
            return {key: held for key, held in parts.items() if key != name}
        return parts | {name: change(parts[name])}

    return changed


def fact(*path):
    """A value in the manifest at a path of keys."""
    *keys, last, found = path

    def change(manifest):
        held = manifest
        for key in keys:
            held = held[key]
        held[last] = found
        return manifest

    return change


def over(content):
    return lambda array: np.full(array.shape, content)


TABLES = [
    ("layers", value("heads", ...), "heads"),
    ("layers", value("heads", "x"), "heads"),
    ("layers", value("heads", 0), "heads"),
    ("layers", value("heads", 10**9), "heads .*1000000000"),
    ("layers", value("heads", 2.5), "heads"),
    ("layers", value("layer", 7), "layer"),
    ("layers", value("layer", 1), "layer"),
    ("layers", value("name", 5), "name"),
    ("layers", value("rows", 10**6), "rows"),
    ("layers", value("rows", -1), "rows"),
    ("layers", value("patch_h", 0.0), "patch_h"),
    ("layers", value("patch_w", "x"), "patch_w"),
    ("layers", value("patch_h", INF), "patch_h"),
    ("layers", value("window_rows", 5), "window_rows"),
    ("layers", value("shift_cols", 3), "shift_cols"),
    ("layers", value("patches", 12), "patches"),
    ("layers", value("prefix", ...), "prefix"),
    ("layers", value("distance_uniform", INF), "distance_uniform"),
    ("layers", value("entropy_uniform", "x"), "entropy_uniform"),
    ("layers", lambda frame: frame.iloc[:0], "0 rows"),
    ("layers", twice, "layer"),
    ("layers", lambda frame: frame.assign(more=[[1], [2]]), "more"),
    ("images", value("id", 5), "id"),
    ("images", value("image", 3), "image"),
    ("images", value("id", ...), "id"),
    ("images", lambda frame: frame.iloc[:0], "0 rows"),
    ("layer_means", value("metric", "../../thesis"), "metric .*thesis"),
    ("layer_means", value("metric", "n" * 300), "metric"),
    ("layer_means", value("metric", None), "metric"),
    ("layer_means", value("layer", -1), "layer"),
    ("layer_means", value("layer", 10**18), "layer"),
    ("layer_means", value("value", INF), "value .*inf"),
    ("layer_means", value("value", 1e308), r"value .*1e\+308"),
    ("layer_means", value("low", ...), "low"),
    ("layer_means", value("fraction", "x"), "fraction"),
    ("layer_means", value("unit", None), "unit"),
    ("layer_means", value("unit", "m" * 41), "unit"),
    ("layer_means", value("definition", ...), "definition"),
    ("layer_means", twice, "twice"),
    ("distance", value("head", 3), "head"),
    ("distance", value("head", -1), "head"),
    ("distance", value("value", "x"), "value"),
    ("distance", value("layer", 0.5), "layer"),
    ("distance", twice, "twice"),
    ("entropy", value("unit", ...), "unit"),
    ("entropy", value("high", INF), "high"),
    ("head_kl", value("head_b", ...), "head_b"),
    ("head_kl", value("head_a", 10**18), "head_a"),
    ("head_kl_mean", value("definition", None), "definition"),
    ("prefix_mass", value("token", 5), "token"),
    ("cka", value("layer_a", 2), "layer_a"),
    ("cka", value("layer_b", "x"), "layer_b"),
]
SAMPLES = [
    ("distance", value("image", 12), "image"),
    ("distance", value("head", 5), "head"),
    ("distance", value("value", "x"), "value"),
    ("entropy", value("value", INF), "value"),
    ("entropy", twice, "twice"),
    ("entropy", lambda frame: frame.iloc[1:], "same of every image"),
    ("head_kl", value("head_a", ...), "head_a"),
    ("cka", value("layer_a", -1), "layer_a"),
    ("cka", lambda frame: frame.iloc[:-1], "same of every image"),
]
ARRAYS = [
    ("grams", part("values", ...), "values"),
    ("grams", part("sizes", ...), "sizes"),
    ("grams", part("values", over(np.nan)), "values"),
    ("grams", part("values", over("x")), "values"),
    ("grams", part("values", lambda array: array[:, 1:]), "values"),
    ("grams", part("sizes", over(-5)), "sizes"),
    ("grams", part("sizes", lambda _: np.array([3, 9])), "sizes"),
    ("maps", part("pool", ...), "pool"),
    ("maps", part("pool", over(0)), "pool"),
    ("maps", part("pool", lambda array: array[:1]), "001"),
    ("maps", part("queries000", over(10**12)), "queries000"),
    ("maps", part("rows000", over(np.nan)), "rows000"),
    ("maps", part("rows001", lambda array: array[:, :1]), "rows001"),
    ("maps", part("place000", over(np.datetime64("2020-01-01"))), "place000"),
    ("maps", part("offset000", over(1j)), "offset000"),
    ("maps", part("offset001", over(-1.0)), "offset001"),
    ("maps", part("index", over(10**12)), "index"),
    ("maps", part("edges", lambda array: array[::-1]), "edges"),
    ("maps", part("images", lambda array: np.zeros_like(array)), "JPEG"),
]
FACTS = [
    (fact("model", "ledger", ["a"]), "ledger"),
    (fact("model", "ledger", {"matched": 5}), "ledger"),
    (fact("model", "assumed", "x"), "assumed"),
    (fact("model", "assumed", [None]), "assumed"),
    (fact("model", "input_size", {}), "input_size"),
    (fact("model", "input_size", [3, -1, 224]), "input_size"),
    (fact("model", "parameters", 1.5), "parameters"),
    (fact("model", "parameters", 10**30), "parameters"),
    (fact("model", "source", None), "source"),
    (fact("model", "crop_pct", [1]), "crop_pct"),
    (fact("config", "x", float("nan")), "x of the settings"),
    (fact("config", "x", [None]), "x of the settings"),
    (fact("config", "x", {"a": None}), "x of the settings"),
    (fact("config", "x", eval("[" * 50 + "]" * 50)), "x of the settings"),
    (fact("config", "limit", "x"), "limit"),
    (fact("config", "maps", True), "maps"),
    (fact("config", "map_images", 5), "map_images"),
    (fact("config", "metrics", [5]), "metrics"),
    (fact("config", "seed", -1), "seed"),
    (fact("config", "prefix", ["a"]), "prefix"),
    (fact("provenance", "images", -1), "images"),
    (fact("provenance", "seconds", INF), "seconds"),
    (fact("provenance", "seed", 10**30), "seed"),
    (fact("provenance", "versions", {"a": None}), "versions"),
]


def refused(folder, words, named=""):
    with pytest.raises(ResultError, match=words) as caught:
        Result.load(folder)
    assert named in caught.value.cause
    assert str(folder) in caught.value.cause
    assert caught.value.remedy
    assert len(caught.value.cause) < len(str(folder)) + 300


def change_frame(path, change):
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def change_arrays(path, change):
    with np.load(path) as held:
        parts = change(dict(held))
    np.savez(path, **parts)


def change_facts(folder, change):
    path = folder / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(("table", "change", "words"), TABLES)
def test_a_damaged_table_is_refused_by_name(tmp_path, whole, table, change, words):
    folder = written(whole, tmp_path)
    change_frame(folder / "tables" / f"{table}.parquet", change)
    refused(folder, rf"damaged: .*{words}", f"the table {table}")


@pytest.mark.parametrize(("table", "change", "words"), SAMPLES)
def test_damaged_per_image_values_are_refused_by_name(tmp_path, whole, table, change, words):
    folder = written(whole, tmp_path)
    change_frame(folder / "samples" / f"{table}.parquet", change)
    refused(folder, rf"damaged: .*{words}", f"the samples {table}")


@pytest.mark.parametrize(("name", "change", "words"), ARRAYS)
def test_damaged_arrays_are_refused_by_name(tmp_path, whole, name, change, words):
    folder = written(whole, tmp_path)
    change_arrays(folder / "arrays" / f"{name}.npz", change)
    refused(folder, rf"damaged: .*{words}")


@pytest.mark.parametrize(("change", "words"), FACTS)
def test_a_damaged_fact_is_refused_by_name(tmp_path, whole, change, words):
    folder = written(whole, tmp_path)
    change_facts(folder, change)
    refused(folder, rf"damaged: .*{words}")


@pytest.mark.parametrize("name", ["tables/cka.parquet", "samples/cka.parquet", "arrays/maps.npz"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path, whole, name, make):
    folder = written(whole, tmp_path)
    (folder / name).unlink()
    make(folder / name)
    refused(folder, "not a regular file")


def test_tables_that_no_memory_holds_are_refused_unread(tmp_path, whole, monkeypatch):
    folder = written(whole, tmp_path)
    monkeypatch.setattr(parquet, "CELLS", 10)
    refused(folder, "cannot read .* rows of")


def test_archives_that_no_memory_holds_are_refused_unread(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", a=np.zeros(100), b=np.zeros(100))
    with pytest.raises(ValueError, match="claim more than 1000 bytes"):
        npz.read(tmp_path / "a.npz", limit=1000)
    monkeypatch.setattr(npz, "MOST_ENTRIES", 1)
    with pytest.raises(ValueError, match="2 arrays"):
        npz.read(tmp_path / "a.npz")


TRACKS = [
    ("track", value("step", 10**12), "step"),
    ("track", value("layer", 99), "layer"),
    ("track", value("value", "x"), "value"),
    ("track", value("metric", "../x"), "metric"),
    ("track", value("unit", ...), "unit"),
    ("track", lambda frame: frame.iloc[:0], "empty"),
    ("track_heads", value("head", -1), "head"),
    ("track_heads", twice, "twice"),
    ("changes", value("change", INF), "change"),
    ("changes", value("q", ...), "q"),
    ("settled", value("step", 5.5), "step"),
    ("settled", value("low", "x"), "low"),
]


@pytest.fixture(scope="module")
def saved_track(tmp_path_factory):
    folder = tmp_path_factory.mktemp("track") / "trk"
    track(run((1, 2, 4)), name="mine", resamples=200).save(folder)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize(("table", "change", "words"), TRACKS)
def test_a_damaged_table_of_a_track_is_refused_by_name(tmp_path, saved_track, table, change, words):
    folder = written(saved_track, tmp_path)
    Track.load(folder)
    change_frame(folder / "tables" / f"{table}.parquet", change)
    with pytest.raises(ResultError, match=rf"damaged: .*{words}") as caught:
        Track.load(folder)
    assert f"table {table}" in caught.value.cause


@pytest.mark.parametrize("step", [10**400, 1e300, 1e15])
def test_steps_beyond_counting_are_refused(tmp_path, saved_track, step):
    folder = written(saved_track, tmp_path)
    change_facts(folder, fact("steps", [1, 2, step]))
    with pytest.raises(ResultError, match="damaged"):
        Track.load(folder)


ANYTHING = [None, -1, 10**12, 2.5, INF, float("nan"), "x", "", "\x1b[2J", [], {}, [None], True]


def scrambled(folder, chance):
    """Change one thing of a folder, anything to anything."""
    kind = chance.choice(["tables", "samples", "arrays", "facts"])
    found = chance.choice(ANYTHING)
    if kind == "facts":
        path = chance.choice([("model",), ("config",), ("provenance",), ()])
        held = json.loads((folder / "manifest.json").read_text())
        for key in path:
            held = held[key]
        change_facts(folder, fact(*path, chance.choice([*held, "new"]), found))
    elif kind == "arrays":
        path = chance.choice(sorted((folder / kind).iterdir()))
        with np.load(path) as held:
            name = chance.choice(held.files)
        number = found if isinstance(found, int | float | str) else 0
        change_arrays(path, part(name, chance.choice([over(number), lambda array: array[:1]])))
    else:
        path = chance.choice(sorted((folder / kind).iterdir()))
        column = chance.choice([*pd.read_parquet(path).columns])
        plain = found if isinstance(found, int | float | str | None) else ...
        change_frame(path, value(column, plain))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_changed_the_command_reports_or_refuses(tmp_path, whole, capsys, seed):
    chance = random.Random(seed)
    folder = written(whole, tmp_path / "run")
    try:
        scrambled(folder, chance)
    except (ValueError, TypeError, OverflowError):  # no file can hold it
        pytest.skip("cannot be written")
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(folder), "-o", str(tmp_path / "page.html")])
    said = capsys.readouterr().err
    assert caught.value.code == 0 or "error: " in said
    assert caught.value.code in (0, 1)
    assert (tmp_path / "page.html").exists() == (caught.value.code == 0)
