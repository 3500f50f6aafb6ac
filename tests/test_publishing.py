"""Files for a paper: drawn by a real browser, written all or nothing, the same every time."""

import asyncio
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import plotly.graph_objects as go
import pytest
from installed import attnprobe
from PIL import Image
from plotly.colors import sample_colorscale
from synthetic import synthetic_result

from attnprobe import plugins
from attnprobe.errors import AttnprobeError, OutputError, ResultError
from attnprobe.plots import Plot
from attnprobe.publication import cells, images, paper, publish, write

HOSTILE = "</text><script>alert(1)</script>&_%$#{}\\\x1b[31m"


@pytest.fixture(scope="module")
def chrome():
    pytest.importorskip("kaleido", reason="kaleido is not installed")
    chromium = pytest.importorskip("choreographer.browsers.chromium").Chromium
    if not chromium.find_browser(skip_local=False):
        pytest.skip("no Chrome or Chromium")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two saved runs, one of them with a hostile name."""
    folder = tmp_path_factory.mktemp("runs")
    models = [synthetic_result("plain"), synthetic_result(HOSTILE, seed=1, layers=6)]
    return [model.save(folder / str(n)) for n, model in enumerate(models)]


def plot(name):
    return plugins.load("attnprobe.plots", name, "PLOT")


def colour_at(figure, x, y):
    """Fill of the outline that has a cell with this lower left corner."""
    (shape,) = [s for s in figure.layout.shapes if f"M{x:g},{y:g}H" in s.path]
    return [int(part) for part in re.findall(r"\d+", shape.fillcolor)]


def viridis(value):
    (text,) = sample_colorscale("Viridis", [value])
    return [float(part) for part in re.findall(r"[\d.]+", text)]


def sizes(path):
    """Width and height of the only page of a PDF, in inches."""
    (box,) = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", path.read_bytes())
    return [float(side) / 72 for side in box]


def test_every_cell_of_a_heat_map_is_outlined_in_its_colour():
    result = synthetic_result(layers=5)
    page = plot("cka").draw([result])
    figure = cells.vector(page)
    assert not any(isinstance(trace, go.Heatmap) for trace in figure.data)
    for row in result.tables["cka"].itertuples():
        found = colour_at(figure, row.layer_a + 0.5, row.layer_b + 0.5)
        assert found == pytest.approx(viridis(row.value), abs=3)
    assert sum(shape.path.count("M") for shape in figure.layout.shapes) == 25
    assert list(figure.layout.xaxis.range) == [0.5, 5.5]
    assert isinstance(page.data[0], go.Heatmap), "the page's figure is left alone"


def test_cells_without_a_value_stay_empty_and_axes_keep_their_direction():
    figure = cells.vector(plot("head_kl_pairs").draw([synthetic_result(layers=3, heads=4)]))
    assert sum(shape.path.count("M") for shape in figure.layout.shapes) == 3 * 4 * 3
    low, high = figure.layout.yaxis.range
    assert low > high  # heads count downwards


def test_heat_maps_with_a_scale_of_their_own_keep_it():
    page = go.Figure(
        go.Heatmap(z=[[0, 1], [2, None]], zmin=-2, zmax=2, colorscale="Viridis", reversescale=True)
    )
    figure = cells.vector(page)
    scale = figure.layout[figure.data[0].marker.coloraxis]
    assert (scale.cmin, scale.cmax) == (-2, 2)
    assert colour_at(figure, -0.5, -0.5) == pytest.approx(viridis(0.5), abs=3)
    assert colour_at(figure, -0.5, 0.5) == pytest.approx(viridis(0.0), abs=3)


@pytest.mark.parametrize("x", [[0, 1, 5], ["a", "b", "c"]])
def test_cells_of_other_places_stay_an_image(x):
    figure = cells.vector(go.Figure(go.Heatmap(x=x, y=[0, 1], z=np.ones((2, 3)))))
    assert isinstance(figure.data[0], go.Heatmap)
    assert not figure.layout.shapes


def test_without_kaleido_the_remedy_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(AttnprobeError, match=r"pip install 'attnprobe\[figures\]'"):
        publish([synthetic_result()], tmp_path / "out", plots=["distance"])
    assert not (tmp_path / "out").exists()


def test_without_chrome_the_remedy_says_how_to_get_one(monkeypatch, tmp_path):
    pytest.importorskip("kaleido", reason="kaleido is not installed")
    monkeypatch.setattr("choreographer.browsers.chromium.Chromium.find_browser", lambda **_: None)
    with pytest.raises(AttnprobeError, match="plotly_get_chrome"):
        publish([synthetic_result()], tmp_path / "out", plots=["distance"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"plots": ["nonsense"]}, "unknown plot 'nonsense'"),
        ({"plots": ["profiles"]}, "cannot fill the plot 'profiles'"),
        ({"formats": ["eps"]}, "unknown format eps"),
        ({"formats": []}, "unknown format none"),
        ({"width": "page"}, "a width of 'page'"),
    ],
)
def test_what_cannot_be_published(asked, said, tmp_path):
    with pytest.raises(AttnprobeError, match=said):
        publish([synthetic_result()], tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [0, 9])
def test_figures_take_one_to_eight_results(count, tmp_path):
    with pytest.raises(ResultError, match="1 to 8 results"):
        publish([synthetic_result()] * count, tmp_path / "out")


def test_figures_never_take_the_place_of_a_result(runs, tmp_path):
    run = synthetic_result().save(tmp_path / "run")
    with pytest.raises(OutputError, match="holds a result, not figures"):
        publish([synthetic_result()], run, overwrite=True)
    assert (run / "summary.csv").is_file()


def test_what_a_publisher_would_refuse_is_said(monkeypatch, tmp_path):
    fake = {("head_kl_pairs", "pdf"): b"/Subtype /Type3"}
    monkeypatch.setattr(images, "draw", lambda figures, formats: fake)
    results = [synthetic_result(f"m{n}", layers=24, heads=4, seed=n) for n in range(4)]
    with (
        pytest.warns(UserWarning, match=r"head_kl_pairs is .* inches tall"),
        pytest.warns(UserWarning, match="Type 3 font in head_kl_pairs.pdf"),
    ):
        publish(results, tmp_path / "out", plots=["head_kl_pairs"], width="column")


@pytest.mark.browser
def test_pdfs_have_the_size_asked_for_embedded_fonts_and_no_images(chrome, tmp_path):
    results = [synthetic_result("a", layers=12, heads=12), synthetic_result("b", seed=1)]
    publish(results, tmp_path, width="column")
    found = sorted(tmp_path.glob("*.pdf"))
    names = ["cka", "distance", "entropy", "head_kl", "head_kl_pairs", "prefix_mass", "profiles"]
    assert [path.stem for path in found] == names
    for path in found:
        data = path.read_bytes()
        wide, high = sizes(path)
        assert wide == pytest.approx(3.25, abs=0.01)
        assert 1 < high < 9
        assert b"/Subtype /Image" not in data
        assert data.count(b"/FontFile") > 0
        assert b"/Type3" not in data
        assert b"Mozilla" not in data
        assert b"/CreationDate" not in data


@pytest.mark.browser
def test_two_runs_write_the_same_bytes(chrome, tmp_path):
    asked = {"plots": ["distance", "cka"], "formats": ("pdf", "png"), "font": "sans"}
    for name in ("one", "two"):
        publish([synthetic_result()], tmp_path / name, **asked)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) > 8
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.browser
def test_svg_is_in_inches_and_png_has_300_dots_to_the_inch(chrome, tmp_path):
    asked = {"plots": ["distance"], "formats": ("svg", "png"), "width": "column"}
    results = [synthetic_result(HOSTILE), *(synthetic_result(name) for name in "bcde")]
    paths = publish(results, tmp_path, **asked)
    assert {path.name for path in paths} >= {"distance.svg", "distance.png", "figures.tex"}
    svg = ET.parse(tmp_path / "distance.svg").getroot()
    assert svg.get("width") == "3.25in"
    high = float(svg.get("viewBox").split()[3]) / 96
    assert float(svg.get("height").removesuffix("in")) == pytest.approx(high, rel=1e-5)
    assert not [element for element in svg.iter() if "script" in str(element.tag)]
    numbered = {item.get("class") for item in svg.iter() if item.tag.endswith("}g")}
    assert {"x4tick", "x5tick", "ytick", "y3tick", "y5tick"} <= numbered  # the edges of the grid
    assert not {"xtick", "x2tick", "y2tick", "y4tick"} & numbered
    words = "".join(svg.itertext())
    assert "</text><script>alert(1)" in words
    assert "\x1b" not in words
    with Image.open(tmp_path / "distance.png") as image:
        assert image.width == 975
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.browser
def test_any_subject_of_any_plot_is_published_inside_a_running_loop(chrome, tmp_path):
    bars = Plot("bars", "Bars", (), lambda heights: go.Figure(go.Bar(y=heights)), of="comparison")
    how = {"formats": ("pdf",), "look": paper(), "overwrite": False, "about": {"pair": "a, b"}}

    async def notebook():
        return write([(bars, [3, 1, 2])], {"verdicts": "% none\n"}, tmp_path / "new", **how)

    names = {path.name for path in asyncio.run(notebook())}
    assert names == {"bars.pdf", "verdicts.tex", "figures.tex", "manifest.json"}
    assert r"\includegraphics{bars.pdf}" in (tmp_path / "new" / "figures.tex").read_text()
    assert json.loads((tmp_path / "new" / "manifest.json").read_text())["pair"] == "a, b"


@pytest.mark.slow
@pytest.mark.browser
def test_the_command_writes_figures_tables_and_captions(chrome, runs, tmp_path):
    asked = ("figures", *runs, "--plot", "distance,profiles", "-o", "fig", "--json")
    done = attnprobe(*asked, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert said["folder"] == "fig"
    on_disk = {str(path.relative_to(tmp_path / "fig")) for path in (tmp_path / "fig").rglob("*.*")}
    assert set(said["files"]) == on_disk
    assert on_disk >= {"distance.pdf", "profiles.pdf", "figures.tex", "tables/distance.tex"}
    assert "\x1b" not in done.stderr
    assert all("\x1b" not in path.read_text() for path in (tmp_path / "fig").rglob("*.tex"))
    for name in re.findall(r"includegraphics\{(.*?)\}", (tmp_path / "fig/figures.tex").read_text()):
        assert sizes(tmp_path / "fig" / name)[0] == pytest.approx(6.75, abs=0.01)

    refused = attnprobe(*asked, cwd=tmp_path, status=1)
    assert "--overwrite" in refused.stderr
    named = ("--name", "MAE", "--name", "SimMIM", "--overwrite", "--plot", "distance")
    attnprobe("figures", *runs, *named, "-o", "fig", cwd=tmp_path)
    assert not (tmp_path / "fig/profiles.pdf").exists()
    assert "MAE" in (tmp_path / "fig/tables/models.tex").read_text()


@pytest.mark.browser
def test_figures_are_drawn_where_torch_cannot_be_imported(chrome, runs, tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, timm=None); from attnprobe.cli import main; "
        f"main(['figures', {str(runs[0])!r}, '--plot', 'cka'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "attnprobe-figures/cka.pdf").stat().st_size > 3000


def test_wrong_use_of_the_command(runs, tmp_path):
    assert "Missing argument" in attnprobe("figures", status=2).stderr
    few = attnprobe("figures", *runs, "--name", "only one", cwd=tmp_path, status=2)
    assert "1 names for 2 models" in few.stderr
    assert "not a result folder" in attnprobe("figures", tmp_path, status=1).stderr
    assert "column" in attnprobe("figures", "--help").stdout
    assert not list(tmp_path.iterdir())
