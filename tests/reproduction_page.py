"""The page of the study that has been run: its tables are written here.

    python tests/reproduction_page.py STUDY [FURTHER...]  # what `attnprobe reproduce` wrote
    python tests/reproduction_page.py                     # from the tables in docs/reproduction

Studies may be unfinished. Further ones, each of a budget of its own, have two tables together.

A test compares the page with what is written here; what is said between the tables is not.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
from metric_pages import filled, replace_file

from attnprobe import claims
from attnprobe.frames import layer_means
from attnprobe.study import judging, load, summarise
from attnprobe.study.judging import quantities
from attnprobe.study.settings import METHODS, SCORES
from attnprobe.study.statements import PAPER

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reproduction.md"
KEPT = ("findings", "accuracies", "drops", "emergence", "missing", "layers", "course")
FURTHER = tuple(
    f"further_{name}" for name in ("findings", "accuracies", "layers", "course", "emergence")
)
BY_LAYER = {
    "distance": "attention distance, part of uniform's",
    "entropy": "attention entropy, part of uniform's",
    "head_kl": "head divergence, nats",
}
COUNTED = {
    judging.HOLDS: "hold",
    judging.ONE_HOLDS: "hold for the one seed there is",
    judging.FAILS: "do not hold",
    judging.ONE_FAILS: "do not hold for the one seed there is",
    judging.OPEN: "are not decided",
    judging.ABSENT: "have not been measured",
}


def blocks(tables):
    """Contents of every block by name."""
    return {
        "accuracies": accuracies(tables["accuracies"], tables["drops"]),
        "counts": counts(tables["findings"]),
        "findings": findings(tables["findings"]),
        "emergence": emergence(tables["emergence"]),
        "layers": layers(tables["layers"]),
        "course": course(tables["course"]),
        "missing": missing(tables["missing"]),
        "further_layers": layers(tables["further_layers"]),
        "further_emergence": emergence(tables["further_emergence"]),
        "further_accuracies": accuracies(tables["further_accuracies"], tables["drops"].head(0)),
        "further_course": course(tables["further_course"]),
        "further_findings": further_findings(tables["further_findings"]),
    }


def layers_of(study):
    """Layer means of every measured encoder, and what is left of its head diversity."""
    claim, parts = claims.load("diversity_collapses"), []
    for run in (run for run in study.runs if run.result is not None):
        kept = quantities(study, claim, run.method).get(run.seed)
        for metric in BY_LAYER:
            held = layer_means(run.result, metric)
            value = held["value"] / (1 if metric == "head_kl" else held["uniform"])
            told = {"method": run.method, "seed": run.seed, "metric": metric, "kept": kept}
            parts.append(pd.DataFrame({"layer": held["layer"] + 1, "value": value}).assign(**told))
    return pd.concat(parts, ignore_index=True).round(4)


def course_of(study):
    """What was left of every run's head diversity at each probe; untrained, nothing can be."""
    claim, rows = claims.load("diversity_collapses"), []
    for run in study.runs:
        for result in run.probes:
            if result.model["step"] == 0:
                continue
            alone = replace(study, runs=(replace(run, result=result),))
            value = quantities(alone, claim, run.method).get(run.seed)
            told = {"step": result.model["step"], "epoch": result.model["epoch"]}
            rows.append({"method": run.method, "seed": run.seed, **told, "kept": value})
    return pd.DataFrame(rows).round(4)


def course(table):
    """The diversity kept by each run, probe by probe."""
    rows = [
        [f"{name}, seed {held['seed'].iloc[0]}", _told(held, "kept", "{:.2f}")]
        for name, held in _each(table, "method", "seed")
    ]
    return _table(["", "divergence kept (epoch)"], rows)


def layers(table):
    """Layer means, a row an encoder, from the first layer to the last."""
    rows = []
    for name, held in _each(table, "method", "seed"):
        values = [held.loc[held["metric"] == metric, "value"] for metric in BY_LAYER]
        cells = [", ".join(f"{value:.3g}" for value in one) for one in values]
        one = held.iloc[0]
        rows.append([f"{name}, seed {one['seed']}", *cells, f"{one['kept']:.2f}"])
    return _table(["", *BY_LAYER.values(), "divergence kept"], rows)


def _each(table, *columns):
    """The groups of a table by columns, named by method; of several studies, after the study."""
    keys = ["study", *columns] if "study" in table else [*columns]
    for _, held in table.groupby(keys, sort=False):
        one = held.iloc[0]
        yield (
            ", ".join([*(one[["study"]] if "study" in table else ()), METHODS[one["method"]]]),
            held,
        )


def accuracies(scores, drops):
    """Each method's accuracies in percent: mean over seeds, and the seeds."""
    numbers = sorted({int(number) for number in drops["dropped"]} - {0})
    heads = [*SCORES.values(), *(f"Without the last {number} blocks" for number in numbers)]
    rows = []
    for name, rated in _each(scores, "method"):
        held = rated.set_index("score")
        cut = drops[drops["method"] == held["method"].iloc[0]].set_index("dropped")
        cells = [_percent(held, score) for score in SCORES]
        rows.append([name, *cells, *(_percent(cut, number) for number in numbers)])
    return _table(["", *heads], rows)


def _percent(frame, key):
    if key not in frame.index:
        return "-"
    row = frame.loc[key]
    each = [f"{100 * float(value):.1f}" for value in str(row["by_seed"]).split(", ")]
    return each[0] if len(each) == 1 else f"{100 * row['value']:.1f} ({', '.join(each)})"


def counts(table):
    """How the verdicts fall, the paper's statements and others apart."""
    of_paper = table["place"].str.startswith(PAPER)
    parts = (("of the paper", table[of_paper]), ("that are not the paper's", table[~of_paper]))
    told = [_counted(whose, rows["verdict"].tolist()) for whose, rows in parts if len(rows)]
    return " ".join(told) + "\n"


def _counted(whose, given):
    each = [f"{given.count(name)} {words}" for name, words in COUNTED.items() if name in given]
    return f"Of {len(given)} statements {whose}: {', '.join(each)}."


def findings(table):
    """By topic: what is said, what was measured, whether it holds, and by which rule."""
    known = table[table["verdict"] != judging.ABSENT]
    parts = []
    for (topic, place), rows in known.groupby(["topic", "place"], sort=False):
        lines = [
            [row.says, f"{row.measured} Holds where: {row.rule}.", row.verdict]
            for row in rows.itertuples()
        ]
        told = _table(["said", "measured", "holds?"], lines)
        parts.append(f"### {topic}\n\n{place[:1].upper()}{place[1:]}.\n\n{told}")
    return "\n".join(parts)


def further_findings(table):
    """What further studies find of the same statements, by the same rules."""
    known = table[table["verdict"] != judging.ABSENT]
    lines = [[row.study, row.says, row.measured, row.verdict] for row in known.itertuples()]
    return _table(["", "said", "measured", "holds?"], lines)


def emergence(table):
    """Means over the last third of the layers at each probe, and the epoch of it."""
    columns = {
        "distance": "attention distance, part of uniform's",
        "head_kl": "head divergence, nats",
    }
    rows = [
        [name, *(_course(held, metric) for metric in columns)]
        for name, held in _each(table, "method")
    ]
    return _table(["", *columns.values()], rows)


def _course(table, metric):
    return _told(table[table["metric"] == metric], "value", "{:.3g}")


def _told(table, column, form):
    """Values of a column and their epochs; a run that ends at a probe is measured there once."""
    held = table.assign(epoch=table["epoch"].round(1)).sort_values("step")
    held = held.drop_duplicates("epoch", keep="last")
    cells = zip(held[column], held["epoch"], strict=True)
    return ", ".join(f"{form.format(value)} ({epoch:g})" for value, epoch in cells)


def missing(table):
    """Steps of the study that have not been run."""
    if table.empty:
        return "Nothing: every step of the study has been run.\n"
    return "".join(f"- `{row.step}`: {row.state}\n" for row in table.itertuples())


def _table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def read(folder):
    """Tables of docs/reproduction."""
    return {name: pd.read_csv(folder / f"{name}.csv") for name in KEPT + FURTHER}


def written(text, tables):
    """The page with its blocks as the tables have them."""
    for name, content in blocks(tables).items():
        opening = f"{name}: written by `python tests/reproduction_page.py`"
        text = filled(PAGE.name, text, opening, content)
    return text


def main(arguments=None, page=PAGE):
    """Keep the tables of studies, where some are given, and write the blocks of the page."""
    kept = page.with_suffix("")
    first, *further = [*map(tables_of, sys.argv[1:] if arguments is None else arguments)] or [{}]
    tables = {name: first[name] for name in KEPT if first}
    for name in FURTHER if further else ():
        tables[name] = pd.concat([one[name.removeprefix("further_")] for one in further])
    kept.mkdir(exist_ok=True)
    for name, table in tables.items():
        table = table if name in FURTHER else table.drop(columns="study")
        replace_file(kept / f"{name}.csv", table.to_csv(index=False))
    replace_file(page, written(page.read_text(), read(kept)))


def tables_of(folder):
    """Tables of a study, its name a column of each."""
    study = load(folder)
    own = {"layers": layers_of(study), "course": course_of(study)}
    tables = summarise(study).tables | own
    return {name: table.assign(study=study.settings["name"]) for name, table in tables.items()}


if __name__ == "__main__":
    main()
