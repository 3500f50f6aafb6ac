"""A study: verdicts follow from planted numbers in both directions; what is damaged is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import on_other_images, planted
from scipy import stats
from synthetic_training import STEPS, write_run
from test_report import HOSTILE, payload, read, words

from attnprobe import claims, plugins
from attnprobe.errors import OutputError, ResultError
from attnprobe.plots import fills
from attnprobe.report import page_of, studypage, studysummary, tables
from attnprobe.reproduction import budgets
from attnprobe.reproduction import study as plans
from attnprobe.reproduction.steps import steps
from attnprobe.study import (
    Run,
    Study,
    findings,
    intervals,
    judging,
    load,
    missing,
    save,
    summarise,
)
from attnprobe.study.accuracies import over_images
from attnprobe.study.folder import PROBES
from attnprobe.study.missing import planned
from attnprobe.study.settings import METHODS

LAYERS, IMAGES = 6, 64
SCORED = {  # own, kNN, linear, fine-tuned, and fine-tuned without two blocks
    "simmim": {"knn": 0.4, "linear": 0.5, "finetuned": 0.83, 2: 0.7},
    "mae": {"knn": 0.4, "linear": 0.5, "finetuned": 0.8},
    "supervised": {"own": 0.75, "knn": 0.6, "linear": 0.7, "finetuned": 0.79, 2: 0.8},
    "mocov3": {"knn": 0.6, "linear": 0.7, "finetuned": 0.79},
}
SWAPPED = {"simmim": "supervised", "supervised": "simmim", "mae": "mocov3", "mocov3": "mae"}
SETTINGS = {
    "data": "train.npz",
    "val": "val.npz",
    "count": 1000,
    "name": "tiny",
    "model": "six layers",
    "images": IMAGES,
    "finetune_epochs": 1,
    "dropped": [0, 2],
    "drops": ["supervised", "simmim"],
    "seeds": {"supervised": 3, "simmim": 3, "mae": 2, "mocov3": 2},
    "epochs": dict.fromkeys(METHODS, 3),
}


def attention(method, seed, **changes):
    """Result of an encoder that is as the paper says of its method."""
    rng = np.random.default_rng([seed, *map(ord, method)])
    masked = method in ("simmim", "mae")
    depth = np.arange(LAYERS)[:, None]
    local = np.tile([20.0, 60.0, 110.0], (LAYERS, 1))
    distance = local if masked else 30 + 20 * depth + np.array([0.0, 1.0, 2.0])
    kl = np.ones((LAYERS, 3, 3)) * (1 if masked else np.where(depth < 4, 1, 0.05)[:, :, None])
    base = rng.normal(size=(2, IMAGES, 8))
    which = [0] * LAYERS if masked else [0, 0, 0, 1, 1, 1]
    features = [base[at] + 0.1 * rng.normal(size=(IMAGES, 8)) for at in which]
    shifted = distance + rng.normal(0, 0.3)
    kl = kl * (1 + 0.02 * rng.normal(size=(LAYERS, 1, 1)))
    told = {"distance": shifted, "kl": kl, "features": features, "images": IMAGES, **changes}
    return planted(f"{method}, seed {seed}", seed=seed, **told)


def scores(settings, *, swapped=False, images=10_000.0):
    """Accuracies around those of `SCORED`; seeds differ by tenths of a point."""
    found = []
    for method, count in settings["seeds"].items():
        known = SCORED[SWAPPED[method] if swapped else method]
        for seed in range(count):
            for score, value in known.items():
                dropped = score if score == 2 else 0
                name = "finetuned" if score == 2 else score
                near = value + 0.001 * (seed - 1) * (1 + 0.3 * dropped)
                found.append((method, seed, 3, dropped, name, near, images))
    columns = ["method", "seed", "epoch", "dropped", "score", "value", "images"]
    return pd.DataFrame(found, columns=columns)


def study(*, swapped=False, seeds=None, images=10_000.0, folder=Path("nowhere"), **attended):
    """A whole study in memory; `swapped` gives masked methods what is said of the others."""
    settings = {**SETTINGS, "seeds": seeds or SETTINGS["seeds"]}
    runs = [
        Run(m, seed, 3, result=attention(SWAPPED[m] if swapped else m, seed, **attended))
        for m in METHODS
        for seed in range(settings["seeds"].get(m, 0))
    ]
    table = scores(settings, swapped=swapped, images=images)
    return Study(folder, settings, tuple(runs), table)


@pytest.fixture(scope="module")
def whole():
    return study()


@pytest.fixture(scope="module")
def found(whole):
    return findings(whole).set_index("finding")


CORRELATED = "diversity-drop"  # planted apart


def test_what_is_as_the_paper_says_holds(found):
    assert len(found) == len(set(found.index))
    rest = found.drop(CORRELATED)
    assert set(rest["verdict"]) == {judging.HOLDS}
    assert set(rest["over"]) == {judging.SEEDS}
    assert found["says"].str.endswith(".").all()
    assert set(found["topic"]) == {
        "Locality",
        "Focus",
        "Head diversity",
        "Layers alike",
        "Last blocks dropped",
        "Accuracy",
        "Accuracy of frozen features",
    }


def test_a_limit_that_the_control_keeps_too_is_said(whole, found):
    """Supervised planted models are under 1 of uniform's distance in some layers, not in all."""
    told = found.loc["local_everywhere-simmim", "measured"]
    assert re.search(r"Interval over 3 seeds\. Supervised, by the same limit: .*\.$", told)
    other = judging.alone(whole, claims.load("local_everywhere"), "supervised")
    assert told.endswith(other.evidence)
    assert "by the same limit" not in found.loc["turns_global-supervised", "measured"]
    alone = findings(study(seeds={"simmim": 2})).set_index("finding")
    assert "by the same limit" not in alone.loc["local_everywhere-simmim", "measured"]


def test_what_is_not_the_papers_is_counted_apart(whole):
    told = " ".join(studysummary.sentences(summarise(whole)))
    assert "Of 25 statements of the paper, " in told
    assert "Of 4 statements that are not the paper's, 4 hold." in told


def test_what_is_the_other_way_round_does_not_hold(found):
    other = findings(study(swapped=True)).set_index("finding")
    assert set(other["verdict"].drop(CORRELATED)) == {judging.FAILS}


def test_the_verdict_follows_from_the_numbers_that_are_shown(found):
    for swapped in (False, True):
        table = findings(study(swapped=swapped)) if swapped else found.reset_index()
        for row in table.itertuples():
            outside = row.limit < row.low or row.high < row.limit
            assert outside == (row.verdict in (judging.HOLDS, judging.FAILS)), row.finding
            assert row.low <= row.value <= row.high, row.finding


def test_one_seed_says_so_and_is_judged_over_images():
    one = findings(study(seeds=dict.fromkeys(METHODS, 1))).set_index("finding")
    rest = one.drop(CORRELATED)
    assert set(rest["verdict"]) == {judging.ONE_HOLDS}
    assert set(rest["over"]) == {judging.IMAGES}
    assert rest["measured"].str.contains("one seed").all()
    assert one.loc[CORRELATED, "verdict"] == judging.OPEN


def test_seeds_that_disagree_leave_it_open():
    """Each of two seeds clears the limit over images; their spread does not."""
    runs = [Run("simmim", 0, 3, result=attention("simmim", 0))]
    runs.append(Run("simmim", 1, 3, result=attention("supervised", 1)))
    table = findings(Study(Path("nowhere"), SETTINGS, tuple(runs), scores(SETTINGS).head(0)))
    row = table.set_index("finding").loc["diversity_collapses-simmim"]
    assert row["verdict"] == judging.OPEN
    assert row["seeds"] == "2"


def test_few_images_and_unknown_numbers_of_them_decide_nothing():
    few = study(seeds=dict.fromkeys(METHODS, 1), images=np.nan)
    short = [replace(run, result=cut(run.result, 5)) for run in few.runs]
    table = findings(replace(few, runs=tuple(short)))
    assert set(table["verdict"]) == {judging.OPEN}
    assert table["low"].isna().all()


def cut(result, images):
    """The same result of a few images."""
    samples = {name: frame.loc[frame["image"] < images] for name, frame in result.samples.items()}
    facts = replace(result.provenance, images=images)
    return replace(result, samples=samples, images=result.images.head(images), provenance=facts)


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=4), 1 + 2 * rng.normal(size=3)
    for confidence in (0.95, 0.99):
        one = stats.ttest_1samp(a, 0).confidence_interval(confidence)
        assert intervals.of_mean(a, confidence) == pytest.approx([one.low, one.high])
        two = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)
        assert intervals.of_difference(a, b, confidence) == pytest.approx([two.low, two.high])
    both = np.stack([a, 2 * a], axis=1)
    assert intervals.of_mean(both)[:, 1] == pytest.approx(2 * intervals.of_mean(a))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5]])
def test_one_seed_or_equal_seeds_have_no_interval(values):
    same = np.array(values)
    assert np.isnan(intervals.of_mean(same)).all()
    assert np.isnan(intervals.of_difference(same, same)).all()


def test_differences_of_accuracies_carry_their_own_intervals(whole, found):
    held = whole.scores.query("dropped == 0 and score == 'knn'").groupby("method")["value"]
    a, b = (held.get_group(name).to_numpy() for name in ("supervised", "simmim"))
    two = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    row = found.loc["knn-supervised-simmim"]
    assert [row["low"], row["high"]] == pytest.approx([two.low, two.high])

    tuned = whole.scores.query("score == 'finetuned' and method == 'simmim'")
    wide = tuned.pivot(index="seed", columns="dropped", values="value")
    paired = stats.ttest_1samp(wide[2] - wide[0], 0).confidence_interval()
    row = found.loc["drop-simmim"]
    assert [row["low"], row["high"]] == pytest.approx([paired.low, paired.high])


def test_an_interval_over_images_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p, count = np.array([0.7, 0.6]), np.array([200.0, 200.0])
    drawn = rng.binomial(200, p, size=(2000, 2)) / 200
    ends = np.array([over_images(list(row), count, 0.95) for row in drawn])
    inside = (ends[:, 0] <= 0.1) & (ends[:, 1] >= 0.1)
    assert 0.94 <= inside.mean() <= 0.965
    assert np.isnan(over_images([0.7, 0.6], np.array([200.0, np.nan]), 0.95)).all()


def test_diversity_and_loss_are_related_within_methods_not_between_them():
    """Six runs a method: loss rises with the diversity kept, or falls with it, or neither."""
    kept = np.linspace(0.3, 0.9, 6)
    noise = 0.002 * np.array([1, -1, 1, -1, 1, -1])
    for slope, verdict in ((0.1, judging.HOLDS), (-0.1, judging.FAILS), (0.0, judging.OPEN)):
        runs, table = [], []
        for method, base in (("supervised", 0.0), ("simmim", 0.2)):
            for seed, part in enumerate(kept):
                kl = np.ones((LAYERS, 3, 3))
                kl[4:] = part
                runs.append(Run(method, seed, 3, result=attention(method, seed, kl=kl)))
                lost = base + slope * part + noise[seed]
                for dropped, value in ((0, 0.7), (2, 0.7 - lost)):
                    table.append((method, seed, 3, dropped, "finetuned", value, 1e4))
        frame = pd.DataFrame(table, columns=scores(SETTINGS).columns)
        one = Study(Path("nowhere"), SETTINGS, tuple(runs), frame)
        row = findings(one).set_index("finding").loc[CORRELATED]
        assert row["verdict"] == verdict
        assert row["over"] == judging.RUNS


# --- on disk


def write_study(folder, *, finished=True, scored=True, **changes):
    """Write a study of one seed a method, as far as it came."""
    settings = {**SETTINGS, "seeds": dict.fromkeys(METHODS, 1), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in settings.items()
        if not isinstance(value, dict)
    ]
    for name in ("seeds", "epochs"):
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in settings[name].items())]
    lines += ["[finetunings.mae.model.model_args]", 'global_pool = "avg"']
    (folder / "study.toml").write_text("\n".join(lines), encoding="utf-8")
    for method in METHODS:
        if settings["seeds"][method] == 0:
            continue
        step, told = (STEPS if finished else 120), {"objective": method, "epochs": ()}
        run = folder / "trainings" / f"{method}-seed0"
        write_run(run, step=step, probed=(0, 40), sizes={"layers": 3, "heads": 2}, **told)
        if finished:
            attention(method, 0).save(folder / "analyses" / f"{method}-seed0-epoch3")
    if scored:
        scores(settings).to_csv(folder / "scores.csv", index=False)
        timed = pd.DataFrame({"step": ["trainings/simmim-seed0"], "seconds": [12.5]})
        timed.to_csv(folder / "timings.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study") / "one")


@pytest.fixture
def copy(folder, tmp_path):
    """The study of `folder` to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def summary(folder):
    return summarise(load(folder))


def test_a_study_is_read_with_its_results_and_scores(folder, summary):
    assert [result.name for result in summary.study.first()] == list(METHODS.values())
    assert set(summary.tables["missing"]["step"]) == {"comparison"}
    ruled = summary.tables["findings"].set_index("finding").drop(CORRELATED)
    assert set(ruled["verdict"]) == {judging.ONE_HOLDS}
    assert summary.tables["timings"].set_index("step")["seconds"]["trainings/simmim-seed0"] == 12.5
    accuracy = summary.tables["accuracies"].set_index(["method", "score"])["value"]
    assert accuracy["simmim", "knn"] == pytest.approx(0.399)
    recipe = summary.tables["recipes"].set_index(["method", "setting"])["value"]
    assert recipe["simmim", "images of an update"] == "64"
    assert recipe["finetuning", "epochs"] == "1"
    assert recipe["finetuning", "pooling of single methods"] == "MAE = avg"


def test_emergence_is_the_last_third_of_each_probe(summary):
    table = summary.tables["emergence"]
    assert set(table["method"]) == set(METHODS)
    one = table.query("method == 'simmim' and step == 40 and metric == 'distance'")
    probe = summary.study.runs[0].probes[1]
    means = probe.tables["layer_means"].query("metric == 'distance'")
    expected = (means["value"] / means["uniform"]).iloc[-1]
    assert one["value"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["study_drops", "study_emergence"])
def test_plots_draw_the_numbers_of_their_tables(summary, name):
    plot = plugins.load("attnprobe.plots", name, "PLOT")
    assert plot.of == "study"
    assert fills(plot, summary.tables)
    table = summary.tables[plot.needs[0]]
    figure = plot.draw(summary)
    assert "NaN" not in figure.to_json()
    drawn = sorted(y for trace in figure.data if "lines" in trace.mode for y in trace.y)
    assert drawn == pytest.approx(sorted(table["value"]), rel=1e-4)


def test_the_tables_are_saved_beside_the_study(summary, copy):
    one = replace(summary, study=replace(summary.study, folder=copy))
    paths = save(one)
    assert paths[0] == copy / "findings.csv"
    again = pd.read_csv(paths[0])
    assert again["verdict"].tolist() == one.tables["findings"]["verdict"].tolist()
    names = {path.name for path in (copy / "tables").iterdir()}
    assert names == {f"{name}.csv" for name in one.tables if name != "findings"}
    assert save(one) == paths
    assert not list(copy.rglob(".attnprobe-*"))


def test_tables_that_cannot_be_written_are_said(summary, tmp_path):
    one = replace(summary, study=replace(summary.study, folder=tmp_path))
    (tmp_path / "tables").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the tables"):
        save(one)


def test_a_study_that_just_began_is_judged_not_measured(tmp_path):
    folder = write_study(tmp_path / "one", finished=False, scored=False)
    one = summarise(load(folder))
    assert set(one.tables["findings"]["verdict"]) == {judging.ABSENT}
    states = one.tables["missing"].set_index("step")["state"]
    assert states["trainings/simmim-seed0"] == "interrupted, epoch 3 of 10"
    assert len(states) == planned(one.study)
    text = words(page_of(folder))
    assert "25 have not been measured" in text
    assert "steps of this study are still to come" in text


def test_without_any_run_there_is_a_page_too(tmp_path):
    (tmp_path / "study.toml").write_text("[seeds]\nsimmim = 1\n[epochs]\nsimmim = 2\n")
    text = words(page_of(tmp_path))
    assert "trainings/simmim-seed0 not begun" in text


def test_the_last_probes_stand_in_until_all_is_analysed(copy):
    shutil.rmtree(copy / "analyses" / "mae-seed0-epoch3")
    one = load(copy)
    assert one.source == PROBES
    assert {result.provenance.images for result in one.first()} == {40}
    table = findings(one).set_index("finding")
    assert "last probe" in table.loc["local_everywhere-simmim", "measured"]
    assert "last probe of each finished training" in words(studypage.render(one))


def test_results_of_other_images_are_refused(copy):
    other = copy / "analyses" / "mae-seed0-epoch3"
    on_other_images(attention("mae", 0)).save(other, overwrite=True)
    with pytest.raises(ResultError, match="measured on different images"):
        load(copy)


def test_a_damaged_part_is_named_and_the_rest_is_shown(copy):
    (copy / "trainings" / "mae-seed0" / "metrics.jsonl").write_text("{\n{}\n")
    one = load(copy)
    (run,) = (run for run in one.runs if run.trouble)
    assert run.method == "mae"
    assert "metrics.jsonl is damaged" in words(studypage.render(one))
    states = missing(one).set_index("step")["state"]
    assert states["trainings/mae-seed0"] == "cannot be read"


DAMAGED = [
    ("study.toml", "seeds", "it has no table|Expected"),
    ("study.toml", "[seeds]\nsimmim = -1\n[epochs]\n", "seeds.simmim cannot be -1"),
    ("study.toml", "[seeds]\nsimmim = true\n[epochs]\n", "cannot be True"),
    ("study.toml", "[seeds]\nsimmim = 1\n[epochs]\n", "how many epochs simmim"),
    ("study.toml", "[seeds]\nbyol = 1\n[epochs]\nbyol = 1\n", "'byol'"),
    ("study.toml", "dropped = ['x']\n[seeds]\n[epochs]\n", "dropped cannot be 'x'"),
    ("study.toml", "[seeds]\n[epochs]\nmae = 10000000000\n", "epochs.mae cannot be"),
    ("scores.csv", "method,seed\n", "no column epoch"),
    ("scores.csv", "{head}\nmae,0,3,0,knn,1.5\n", "outside 0 to 1"),
    ("scores.csv", "{head}\nmae,0,3,0,knn,\n", "outside 0 to 1"),
    ("scores.csv", "{head}\nmae,0,3,0,knn,lots\n", "lots"),
    ("scores.csv", "{head}\nbyol,0,3,0,knn,0.5\n", "no study has"),
    ("scores.csv", "{head}\nmae,,3,0,knn,0.5\n", "no count"),
    ("scores.csv", "{head}\nmae,0,3,0,knn,0.5\nmae,0,3,0,knn,0.6\n", "twice"),
    ("timings.csv", "step,seconds\na,-1\n", "no number of seconds"),
    ("timings.csv", "step\na\n", "no column seconds"),
]


@pytest.mark.parametrize(("name", "text", "told"), DAMAGED)
def test_damaged_files_are_refused(tmp_path, name, text, told):
    (tmp_path / "study.toml").write_text("[seeds]\nmae = 1\n[epochs]\nmae = 3\n")
    head = "method,seed,epoch,dropped,score,value"
    (tmp_path / name).write_text(text.replace("{head}", head))
    with pytest.raises(ResultError, match=told):
        load(tmp_path)


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(ResultError, match=r"has no study\.toml"):
        load(tmp_path)


@pytest.mark.parametrize("name", budgets.names())
def test_a_planned_study_is_read_as_it_was_planned(tmp_path, name):
    plan = plans.Study(tmp_path, budgets.load(name), "train.npz", "val.npz", 50_000)
    (tmp_path / "study.toml").write_text(plan.text(), encoding="utf-8")
    one = load(tmp_path)
    everything = steps(plan, workers=0)
    assert planned(one) == len(everything)
    assert set(missing(one)["step"]) == {step.name for step in everything}


def test_a_study_that_drops_no_block_has_no_figure_of_it(tmp_path):
    tables = summarise(load(write_study(tmp_path / "study", dropped=[0]))).tables
    assert tables["drops"].empty
    assert "finetuned" in set(tables["accuracies"]["score"])


def test_a_change_has_the_decimals_of_its_interval():
    found = pd.DataFrame({"change": [-12.3], "change_low": [-14.1], "change_high": [0.18]})
    assert set(tables.built("drops", "", found).places) == {2}


def test_the_page_says_what_was_found_and_is_safe(copy):
    settings = copy / "study.toml"
    hostile = json.dumps(HOSTILE)
    text = settings.read_text(encoding="utf-8")
    for known in ('"train.npz"', '"six layers"', '"tiny"'):
        assert known in text
        text = text.replace(known, hostile)
    settings.write_text(text, encoding="utf-8")
    page = page_of(copy)
    found = read(page)
    assert not {tag for tag, _ in found.elements} & {"img", "iframe", "object"}
    assert "alert(1)" not in "".join(found.scripts)
    text = words(page)
    for heading in ("The paper says", "We measured", "Holds?"):
        assert heading in text
    assert text.count("holds for one seed") >= 28
    assert re.search(r"SimMIM \(3 epochs, 1 seed\)", text)
    figures = payload(page)["figures"]
    assert {"distance", "entropy", "cka", "study_drops", "study_emergence"} <= set(figures)
    panels = [note["text"] for note in figures["distance"]["layout"]["annotations"]]
    assert panels == list(METHODS.values())
