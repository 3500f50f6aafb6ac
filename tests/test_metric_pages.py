"""The pages of the metrics say what the code says, and their examples what it measures."""

import doctest
import shutil

import numpy as np
import pandas as pd
import pytest
import tomlkit
import torch
from metric_pages import (
    END,
    PAGES,
    PAIRS,
    PARTS,
    TYPICAL,
    UNMEASURED,
    main,
    read_numbers,
    thirds,
    written,
)
from planted import planted

from attnprobe import metrics
from attnprobe.measuring import Measurement
from attnprobe.tensors import AttentionInputs
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

HEADINGS = (
    "What it means",
    "Definition",
    "A worked example",
    "How to read it",
    "Typical values",
    "Pitfalls",
)
GRID = TokenGrid(2, 2, (16, 16), prefix=1, names=("cls",))
STUDY = {
    "name": "made up",
    "model": "six layers",
    "count": 100,
    "images": 64,
    "seeds": {"supervised": 2, "mae": 1},
    "epochs": {"supervised": 4, "mae": 3},
}


def test_there_is_a_page_for_every_metric_and_no_other():
    assert {page.stem for page in PAGES.glob("*.md")} == {"README", *metrics.names()}
    index = (PAGES / "README.md").read_text()
    assert all(f"({name}.md)" in index for name in metrics.names())


@pytest.mark.parametrize("name", metrics.names())
def test_pages_are_what_the_code_and_the_numbers_give(name):
    text = (PAGES / f"{name}.md").read_text()
    assert written(text, name, read_numbers()) == text, "run python tests/metric_pages.py"
    headings = tuple(line[3:] for line in text.splitlines() if line.startswith("## "))
    assert headings == HEADINGS
    assert metrics.load(name).title.lower() in text.lower()


@pytest.mark.parametrize("name", metrics.names())
def test_worked_examples_are_right_and_what_is_measured(name):
    page = PAGES / f"{name}.md"
    example = doctest.DocTestParser().get_doctest(page.read_text(), {}, name, str(page), 0)
    assert example.examples
    runner = doctest.DocTestRunner(verbose=False)
    result = runner.run(example, clear_globs=False)
    assert result.failed == 0
    found = measured(name, example.globs)
    assert found == pytest.approx(np.asarray(example.globs["value"]), rel=1e-5, abs=1e-6)


def measured(name, held):
    """What attnprobe makes of the example's attention, or of its features."""
    metric, options = metrics.load(name), MetricOptions()
    if metric.features:
        layers = [torch.from_numpy(x) for x in held["features"]]
        samples = metric.features.group(layers, options)["samples"]
        return metric.statistic.of_means(samples.mean(0))
    weights = np.full((2, 5, 5), 0.2)  # the row of CLS is no patch query
    weights[:, 1:] = held["A"]
    zeros = torch.zeros(1, 2, 5, 4)
    bias = torch.from_numpy(np.log(weights)).float().unsqueeze(0)
    layer = LayerInfo(0, "example", 2, 4, GRID)
    measurement = Measurement.start((name,), options, "auto")
    measurement.on_attention(AttentionInputs(layer, 1, zeros, zeros, 1.0, bias))
    return measurement.take([layer]).rows[f"{name}|0"][0]


def test_thirds_are_those_of_the_claims():
    cuts = thirds(8, "a run")
    assert [list(range(8)[cut]) for cut in cuts] == [[0, 1, 2], [3, 4], [5, 6, 7]]


def usual(result):
    """A planted result under the default conventions, its parts of uniform filled in."""
    options, tables = MetricOptions(), {}
    for name, table in result.tables.items():
        said = table.get("metric", pd.Series(name, index=table.index))
        words = said.map(lambda key: metrics.load(key).definition(options))
        tables[name] = table.assign(definition=words)
    means = tables["layer_means"]
    tables["layer_means"] = means.assign(fraction=means["value"] / means["uniform"])
    return tables


@pytest.fixture
def study(tmp_path):
    """Two seeds of one method and one of another, with known layers."""
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(64, 5)) for _ in range(6)]
    folder = tmp_path / "study"
    for place, level in (
        ("supervised-seed0-epoch4", 10),
        ("supervised-seed1-epoch4", 20),
        ("mae-seed0-epoch3", 30),
        ("mae-seed0-epoch0", 90),
        ("mae-seed0-epoch2", 70),
    ):
        distance = np.repeat(level + np.arange(6.0)[:, None], 3, axis=1)
        result = planted(place, distance=distance, features=features, noise=0)
        result.tables.update(usual(result))
        result.save(folder / "analyses" / place)
    (folder / "study.toml").write_text(tomlkit.dumps(STUDY))
    return folder


@pytest.fixture
def pages(tmp_path):
    return shutil.copytree(PAGES, tmp_path / "pages", ignore=lambda *_: [TYPICAL])


def test_numbers_come_from_the_final_encoders_of_all_seeds(study, pages):
    main([str(study)], pages)
    table = pd.read_csv(pages / TYPICAL)
    px = table[(table["metric"] == "distance") & (table["scale"] == "px")]
    rows = px.set_index(["method", "stage", "part"])[["value", "low", "high", "seeds"]]
    assert rows.loc[("supervised", "trained", "first third")].tolist() == [15.5, 10.5, 20.5, 2]
    assert rows.loc[("mae", "trained", "middle third")].tolist() == [32.5, 32.5, 32.5, 1]
    assert rows.loc[("mae", "untrained", "last third")].tolist() == [94.5, 94.5, 94.5, 1]
    assert len(rows) == 9  # a snapshot on the way, epoch 2, is neither trained nor untrained
    assert set(table[table["metric"] == "cka"]["part"]) == set(PAIRS)
    assert set(px["part"]) == set(PARTS)
    page = (pages / "distance.md").read_text()
    assert "| supervised, trained | 2 | 15.5 [10.5, 20.5] |" in page
    assert "| mae, untrained | 1 | 90.5 | 92.5 | 94.5 |" in page
    assert "trained on 100 images, measured on 64 held-out ones" in page
    assert "0.155 [0.105, 0.205]" in page  # of a uniform value of 100 px
    assert UNMEASURED in (pages / "prefix_mass.md").read_text()


def test_cka_is_the_mean_over_pairs_of_layers_of_two_thirds(study, pages):
    square = planted_square(study)
    main([str(study)], pages)
    found = pd.read_csv(pages / TYPICAL).query("metric == 'cka' and method == 'mae'")
    value = found[found["part"] == "first with last"]["value"].iloc[0]
    by_hand = np.mean([square[a][b] for a in (0, 1) for b in (4, 5)])
    assert value == pytest.approx(by_hand, rel=1e-5)


def planted_square(study):
    table = pd.read_parquet(study / "analyses" / "mae-seed0-epoch3" / "tables" / "cka.parquet")
    return {
        a: dict(zip(x["layer_b"], x["value"], strict=True)) for a, x in table.groupby("layer_a")
    }


def test_pages_say_nothing_without_numbers_and_are_stable(pages):
    before = {page.name: page.read_text() for page in pages.glob("*.md")}
    main([], pages)
    after = {page.name: page.read_text() for page in pages.glob("*.md")}
    if not (PAGES / TYPICAL).exists():
        assert before == after
    assert all(UNMEASURED in after[f"{name}.md"] for name in metrics.names())
    assert not list(pages.glob(".*"))


def other_images(study):
    result = planted("x", distance=np.ones((6, 3)), images=32)
    result.tables.update(usual(result))
    result.save(study / "analyses" / "mae-seed0-epoch3", overwrite=True)


def shallow(study):
    result = planted("x", distance=np.ones((2, 3)))
    result.tables.update(usual(result))
    result.save(study / "analyses" / "mae-seed0-epoch3", overwrite=True)


def otherwise(study):
    result = planted("x", distance=np.ones((6, 3)))
    result.tables.update(usual(result))
    said = result.tables["distance"].assign(definition="tokens, patch-to-patch, renormalised, v1")
    result.tables["distance"] = said
    result.save(study / "analyses" / "mae-seed0-epoch3", overwrite=True)


BROKEN = {
    "no study": (lambda study: (study / "study.toml").unlink(), "holds no study"),
    "unfinished": (
        lambda study: shutil.rmtree(study / "analyses" / "supervised-seed1-epoch4"),
        "supervised-seed1-epoch4 is missing",
    ),
    "images": (other_images, "of 2 sets of images"),
    "shallow": (shallow, "has 2 layers"),
    "convention": (otherwise, "another convention of distance: tokens"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_study_that_is_not_whole_changes_nothing(study, pages, kind):
    breaking, words = BROKEN[kind]
    breaking(study)
    before = {page.name: page.read_text() for page in pages.iterdir()}
    with pytest.raises(SystemExit, match=words):
        main([str(study)], pages)
    assert {page.name: page.read_text() for page in pages.iterdir()} == before


def test_a_page_without_its_markers_is_refused(pages):
    page = pages / "cka.md"
    page.write_text(page.read_text().replace(END, ""))
    with pytest.raises(SystemExit, match=r"cka\.md has no block for definition"):
        main([], pages)
