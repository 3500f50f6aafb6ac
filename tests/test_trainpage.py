"""Figures of a training run hold what was logged; its page is one safe file that says it."""

import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from synthetic_training import CONFIG, STEPS, lines, loss, write_run
from test_report import HOSTILE, payload, read, words

import attnprobe
from attnprobe import plugins
from attnprobe.cli import main
from attnprobe.errors import OutputError
from attnprobe.plots import Plot, fills
from attnprobe.report import report
from attnprobe.report.albums import LARGEST, album
from attnprobe.report.trainpage import MOST_PROBES, MOST_ROWS, emerged, render
from attnprobe.traininglog import load

PLOTS = ("training_loss", "training_rate", "training_scores")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("training") / "run")


@pytest.fixture(scope="module")
def run(folder):
    return load(folder)


@pytest.fixture(scope="module")
def page(run):
    return render(run)


def plot(name) -> Plot:
    return plugins.load("attnprobe.plots", name, "PLOT")


def sections(page):
    return [attrs["id"] for tag, attrs in read(page).elements if tag == "section"]


@pytest.mark.parametrize("name", PLOTS)
def test_plots_draw_a_run_as_plain_json(run, name):
    assert plot(name).of == "training"
    assert fills(plot(name), run.tables)
    text = plot(name).draw(run).to_json()
    assert "NaN" not in text
    assert json.loads(text)["data"]


def test_the_loss_is_drawn_as_logged_with_its_mean_and_evaluations(run):
    raw, smooth, evaluated = plot("training_loss").draw(run).data
    rows = [row for row in lines() if row["kind"] == "train"]
    assert list(raw.x) == pytest.approx([row["epoch"] for row in rows])
    assert list(raw.y) == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    assert list(smooth.y) == pytest.approx(run.scalars["loss_smooth"].tolist(), rel=1e-5)
    assert list(evaluated.y) == pytest.approx(
        [loss(n) + 0.05 for n in range(80, 401, 80)], rel=1e-5
    )
    assert raw.hovertext[1].startswith("epoch 0.25, step 10<br>loss, as logged ")


def test_one_logged_value_is_seen(run):
    one = replace(run, scalars=run.scalars.iloc[:1], evals=run.evals.iloc[:0])
    assert plot("training_loss").draw(one).data[0].mode == "markers"
    assert {trace.mode for trace in plot("training_rate").draw(one).data} == {"markers"}


def test_rates_have_a_panel_each_and_scores_a_line_each(run):
    rates = plot("training_rate").draw(run)
    titles = [axis.title.text for axis in rates.select_yaxes()]
    assert titles == ["Learning rate", "Images per second", "Gradient norm"]
    assert list(rates.data[0].y) == pytest.approx(run.scalars["lr"].tolist(), rel=1e-5)
    scores = plot("training_scores").draw(run)
    assert [trace.name for trace in scores.data] == ["kNN, top-1", "linear probe, top-1"]
    assert list(scores.data[0].x) == [2, 4, 6, 8, 10]
    assert "%" in scores.layout.yaxis.tickformat
    assert scores.layout.xaxis.range == rates.layout.xaxis.range


def test_the_page_says_what_was_trained_how_far_and_what_came_of_it(page):
    shown = words(page)
    for text in (
        "SimMIM (Xie et al. 2022): vit_tiny_patch16_224 (5.38 M parameters)",
        "The run is finished: 10 epochs, 400 updates of 64 images.",
        "The loss fell from",
        "reaches a top-1 accuracy of 40.0 % at epoch 10 (epoch 2: 24.0 %).",
        "A linear probe reaches 50.0 %",
        "5 probes of the attention, epoch 0 to epoch 10",
        "Attention distance changed most in layers 1 and 2",
        "Divergence between heads changed most in layer 1",
        "brackets hold 95 % intervals of the paired difference",
        "n01/broken.jpg",
        "attnprobe pretrain simmim --recipe simmim-cifar --data images --out run",
    ):
        assert text in shown
    assert CONFIG.strip() in "".join(read(page).text)
    metrics = ["distance", "entropy", "head_kl", "prefix_mass"]
    assert sections(page) == [
        *("progress", "evaluation", "movie", "changes", "overview", *metrics),
        *("reconstructions", "run", "methods", "reproduce"),
    ]
    links = [attrs["href"] for tag, attrs in read(page).elements if tag == "a"]
    assert {f"#{name}" for name in sections(page)} <= set(links)


def test_the_page_holds_every_number_and_frame(page, run):
    held = payload(page)
    assert {*PLOTS, "track_movie", "track_map", "track_layers_distance"} <= set(held["figures"])
    frames = held["figures"]["track_movie"]["frames"]
    assert [frame["name"] for frame in frames] == ["0", "1", "3", "6", "10"]
    rows = held["tables"]["logged"]["rows"]
    assert [row[2] for row in rows] == run.scalars["loss"].tolist()
    cells = {attrs.get("data-value") for tag, attrs in read(page).elements if tag == "td"}
    assert set(map(str, run.evals["linear_top1"])) <= cells


def test_reconstructions_are_inside_the_page_and_the_last_is_shown(page, run):
    shown = [attrs for tag, attrs in read(page).elements if tag == "img"]
    assert [attrs["data-epoch"] for attrs in shown] == ["1", "2", "5", "10"]
    assert ["hidden" in attrs for attrs in shown] == [True, True, True, False]
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in shown)
    assert all(f"after epoch {attrs['data-epoch']}" in attrs["alt"] for attrs in shown)
    assert re.search(r'type="range"[^>]*aria-label="Epoch"', page)
    assert "http" not in page.split('id="payload"')[0].replace("http-equiv", "")


def test_large_pictures_are_made_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (900, 2000, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert file.tell() > LARGEST
    small, large = album([(1, file.getvalue()), (2, _png(40))][::-1])
    assert large.source.startswith("data:image/jpeg;base64,")
    assert (large.width, large.height) == (1400, 630)
    assert len(large.source) < 2 * LARGEST
    assert (small.width, small.small, large.small) == (40, True, False)


def _png(side):
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


CASES = {
    "no probes": {"probed": ()},
    "one probe": {"probed": (0,)},
    "no evaluations": {"evals": False},
    "no pictures": {"epochs": ()},
    "interrupted": {"step": 150},
    "just begun": {"step": 0, "probed": (), "epochs": ()},
    "diverged": {"step": 150, "status": "diverged", "images_per_second": None},
}


@pytest.mark.parametrize("case", CASES)
def test_a_part_that_is_not_there_is_left_out(tmp_path, case):
    page = render(load(write_run(tmp_path / "run", **CASES[case])))
    found, shown = sections(page), words(page)
    assert ("movie" in found) == (case not in ("no probes", "one probe", "just begun"))
    assert ("methods" in found) == (case not in ("no probes", "just begun"))
    assert ("distance" in found) == (case not in ("no probes", "just begun"))
    assert ("evaluation" in found) == (case not in ("no evaluations", "just begun"))
    assert ("reconstructions" in found) == (case not in ("no pictures", "just begun"))
    assert {"run", "reproduce"} <= set(found)
    if case == "interrupted":
        told = "The run was interrupted, after 3.75 epochs, 150 updates of 64 images (planned: 10"
        assert told in shown
    if case == "one probe":
        assert "Attention as it was after 0 updates: 4 attention layers of 3 heads" in shown
    if case == "just begun":
        assert "No loss was logged yet." in shown
    if case == "diverged":
        assert "its loss was no longer a number" in shown


def test_probes_between_epochs_stand_at_their_steps(tmp_path):
    run = load(write_run(tmp_path / "run", probed=(0, 50, 130)))
    track = emerged(run).track
    assert (track.word, track.steps) == ("step", (0, 50, 130))


def test_probes_that_do_not_belong_together_are_told(folder, tmp_path):
    path = shutil.copytree(folder, tmp_path / "run")
    other = write_run(tmp_path / "other", probed=(400,), epochs=(), sizes={"layers": 2})
    shutil.rmtree(path / "probe" / "step-00000400")
    shutil.move(other / "probe" / "step-00000400", path / "probe")
    page = render(load(path))
    assert "Only the last probe is shown" in words(page)
    assert "have different layers" in words(page)
    assert "movie" not in sections(page)


def test_long_runs_are_thinned(run):
    several = [run.results[0]] * 3
    long = replace(run, results=several * 60, scalars=run.scalars.loc[run.scalars.index.repeat(40)])
    read_results = emerged(replace(long, results=several * 60)).results
    assert len(read_results) == MOST_PROBES
    rows = payload(render(replace(long, results=())))["tables"]["logged"]["rows"]
    assert len(rows) == MOST_ROWS
    assert rows[-1][0] == STEPS


def test_hostile_text_stays_text(tmp_path, run):
    changes = dict.fromkeys(("name", "title", "command", "device", "licence", "recipe"), HOSTILE)
    changes["skipped"] = [HOSTILE]
    changes["model"] = {**run.manifest["model"], "architecture": HOSTILE}
    path = write_run(tmp_path / "run", probed=(), **changes)
    (path / "config.toml").write_text(f"name = '''{HOSTILE.replace(chr(39), '')}'''\n")
    ours, theirs = read(render(load(path))), read(render(replace(run, results=())))
    assert len(ours.scripts) == len(theirs.scripts)
    assert not [tag for tag, attrs in ours.elements if "onerror" in attrs]
    steering = replace(run, manifest={**run.manifest, "name": "mine\x1b[2J\u202e"}, results=())
    assert not re.search("[\x1b\u202e]", render(steering))


def test_a_run_is_reported_from_python_and_the_command_line(folder, run, page, tmp_path):
    assert attnprobe.report(run, tmp_path / "a.html").read_text(encoding="utf-8") == page
    with pytest.raises(SystemExit) as left:
        main(["report", str(folder)])
    assert left.value.code == 0
    assert (folder / "report.html").read_text(encoding="utf-8") == page
    with pytest.raises(OutputError, match="exists"):
        report(folder, folder / "report.html")
