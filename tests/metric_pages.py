"""The pages of the metrics: what the code and a finished study know of them is written here.

    python tests/metric_pages.py            # definitions, and tables from docs/metrics/typical.csv
    python tests/metric_pages.py STUDY      # first makes typical.csv from a finished study

A study is what `attnprobe reproduce` writes: of each method the final encoders of all its seeds
are read (and untrained ones, epoch 0, where they are), measured by the default conventions.
A test compares the pages with what is written here.
"""

import argparse
import sys
import tomllib
from dataclasses import replace
from importlib import import_module
from inspect import getdoc
from pathlib import Path

import numpy as np
import pandas as pd

from attnprobe import metrics
from attnprobe.claims import third
from attnprobe.measuring import CHOICES
from attnprobe.results import Result
from attnprobe.types import MetricOptions, TokenGrid

PAGES = Path(__file__).resolve().parent.parent / "docs" / "metrics"
TYPICAL = "typical.csv"
BLOCKS = ("definition", "typical")
END = "<!-- end -->\n"
GRID = TokenGrid(14, 14, (16, 16), prefix=1, names=("cls",))
PARTS = ("first third", "middle third", "last third")
PAIRS = ("first with middle", "first with last", "middle with last")
COLUMNS = ["metric", "scale", "method", "stage", "part", "value", "low", "high", "seeds", "study"]
UNMEASURED = (
    "Not measured yet: `attnprobe reproduce` makes a study, `python tests/metric_pages.py STUDY` "
    "puts its numbers here.\n"
)


def definition(name):
    """What the code says of a metric: formula, convention, unit, axes, and its switches."""
    metric, options = metrics.load(name), MetricOptions()
    module = getdoc(import_module(f"attnprobe.metrics.{name}"))
    rows = [
        ("name", f"`{name}`"),
        ("convention printed with every value", metric.definition(options)),
        ("unit", metric.unit(options) or "none"),
        ("one value for", ", ".join(metric.axes).replace("_", " ")),
    ]
    where = "14 x 14 patches of 16 px and a CLS token"
    if metric.uniform:
        rows.append((f"uniform attention, {where}", f"{metric.uniform(GRID, options):.4g}"))
    if metric.maximum:
        rows.append((f"largest possible, {where}", f"{metric.maximum(GRID, options):.4g}"))
    rows += [
        (f"`--{field.replace('_', '-')} {choice}`", said)
        for field, known in CHOICES.items()
        for choice in known
        if (said := metric.definition(replace(options, **{field: choice})))
        != metric.definition(options)
    ]
    table = [f"| {left} | {right} |" for left, right in (("", ""), ("---", "---"), *rows)]
    return f"```text\n{module}\n```\n\n" + "\n".join(table) + "\n"


def typical(name, numbers):
    """The tables of one metric from typical.csv."""
    found = numbers[numbers["metric"] == name]
    if found.empty:
        return UNMEASURED
    (study,) = found["study"].unique()
    lines = [f"{study} Mean over seeds, [smallest, largest] seed."]
    for scale, rows in found.groupby("scale", sort=False):
        parts = list(dict.fromkeys(rows["part"]))
        lines += ["", f"| {scale} | seeds | {' | '.join(parts)} |", "|---" * (2 + len(parts)) + "|"]
        for (method, stage), held in rows.groupby(["method", "stage"], sort=False):
            by_part = held.set_index("part")
            cells = [_cell(by_part.loc[part]) for part in parts]
            seeds = by_part["seeds"].iloc[0]
            lines.append(f"| {method}, {stage} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row):
    spread = f" [{row['low']:.3g}, {row['high']:.3g}]" if row["seeds"] > 1 else ""
    return f"{row['value']:.3g}{spread}"


def written(text, name, numbers):
    """A page with its blocks as the code and the numbers have them."""
    contents = {"definition": definition(name), "typical": typical(name, numbers)}
    for block in BLOCKS:
        opening = f"{block}: written by `python tests/metric_pages.py`"
        text = filled(f"{name}.md", text, opening, contents[block])
    return text


def filled(page, text, opening, content):
    """A page with the text between the comment of an opening and the next end as it has to be."""
    start = f"<!-- {opening} -->\n"
    before, found, rest = text.partition(start)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"{page} has no block for {opening}")
    return f"{before}{start}\n{content}\n{END}{after}"


def numbers_of(study):
    """Table of typical.csv from the folder of a finished study."""
    facts = tomllib.loads((study / "study.toml").read_text())
    parts, seen = [], set()
    for method, seeds in facts["seeds"].items():
        final = facts["epochs"][method]
        for stage, epoch in (("untrained", 0), ("trained", final)):
            places = [study / "analyses" / f"{method}-seed{k}-epoch{epoch}" for k in range(seeds)]
            there = [place for place in places if (place / "manifest.json").is_file()]
            if len(there) < seeds and (there or epoch):
                missing = next(place.name for place in places if place not in there)
                raise SystemExit(f"the study is not finished: analyses/{missing} is missing")
            results = [Result.load(place) for place in there]
            seen |= {(x.provenance.images, x.provenance.images_sha256) for x in results}
            held = [values_of(x, place.name) for x, place in zip(results, there, strict=True)]
            if held:
                parts.append(over_seeds(held).assign(method=method, stage=stage))
    if len(seen) != 1:
        raise SystemExit(f"the analyses are of {len(seen)} sets of images, not of one")
    ((images, _),) = seen
    whole = pd.concat(parts, ignore_index=True).assign(study=said_of(facts, images))
    order = whole["metric"].map(list(metrics.DEFAULT).index)
    return whole.iloc[order.argsort(kind="stable")][COLUMNS].reset_index(drop=True)


def said_of(facts, images):
    """One sentence about a study, measured on so many images."""
    return (
        f"Budget `{facts['name']}` of `attnprobe reproduce` ({facts['model']}), trained on "
        f"{facts['count']} images, measured on {images} held-out ones."
    )


def over_seeds(held):
    """Mean, least and largest over the seeds of one method."""
    by = ["metric", "scale", "part"]
    values = pd.concat(held).groupby(by, sort=False)["value"]
    found = values.agg(value="mean", low="min", high="max", seeds="size").reset_index()
    if set(found["seeds"]) != {len(held)}:
        raise SystemExit("the seeds of a method have other metrics")
    return found


def values_of(result, place):
    """Means over thirds of the layers of one result: metric, scale, part, value."""
    for name in metrics.names():
        if name in result.tables:
            said, usual = result.tables[name]["definition"].iloc[0], metrics.load(name)
            if said != usual.definition(MetricOptions()):
                raise SystemExit(f"{place} has another convention of {name}: {said}")
    means, rows = result.tables["layer_means"], []
    for name, layers in means.groupby("metric", sort=False):
        layers = layers.sort_values("layer")
        unit = layers["unit"].iloc[0]
        scales = {unit: layers["value"], "part of uniform attention's": layers["fraction"]}
        for scale, values in scales.items():
            if values.notna().all():
                rows += [(name, scale, *pair) for pair in by_third(values.to_numpy(), place)]
    if "cka" in result.tables:
        square = result.tables["cka"].pivot_table(
            index="layer_a", columns="layer_b", values="value"
        )
        rows += [("cka", "CKA", *pair) for pair in between_thirds(square.to_numpy(), place)]
    return pd.DataFrame(rows, columns=["metric", "scale", "part", "value"])


def thirds(depth, place):
    """First, middle and last layers."""
    n = third(depth)
    if depth <= 2 * n:
        raise SystemExit(f"{place} has {depth} layers, none of them between two thirds")
    return slice(0, n), slice(n, depth - n), slice(depth - n, depth)


def by_third(values, place):
    """Pairs of part and mean."""
    cuts = thirds(len(values), place)
    return [(part, values[cut].mean()) for part, cut in zip(PARTS, cuts, strict=True)]


def between_thirds(square, place):
    """Pairs of parts and mean CKA between their layers."""
    first, middle, last = thirds(len(square), place)
    blocks = (square[first, middle], square[first, last], square[middle, last])
    return [(part, np.mean(block)) for part, block in zip(PAIRS, blocks, strict=True)]


def read_numbers(pages=PAGES):
    """typical.csv, or no rows where there is none."""
    path = pages / TYPICAL
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)


def replace_file(path, text):
    """Write under another name, then rename."""
    staging = path.with_name(f".{path.name}.part")
    staging.write_text(text)
    staging.replace(path)


def main(arguments=None, pages=PAGES):
    """Write typical.csv, where a study is given, and the blocks of every page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", type=Path, help="folder of a finished study")
    given = parser.parse_args(arguments)
    if given.study:
        if not (given.study / "study.toml").is_file():
            raise SystemExit(f"{given.study} holds no study: there is no study.toml")
        table = numbers_of(given.study)
        replace_file(pages / TYPICAL, table.to_csv(index=False, float_format="%.6g"))
    numbers = read_numbers(pages)
    for name in metrics.names():
        page = pages / f"{name}.md"
        replace_file(page, written(page.read_text(), name, numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
