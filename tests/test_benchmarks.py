"""Every benchmark runs at toy size, writes rows, and refuses to time numbers that disagree."""

import csv
import doctest
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import attnprobe

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # the scripts import each other by name, as when they are run

# isort: split
import _child  # noqa: E402
import _common  # noqa: E402
import _page_figures  # noqa: E402
import _photos  # noqa: E402
import _rows  # noqa: E402
import bench_cka  # noqa: E402
import bench_files  # noqa: E402
import bench_memory  # noqa: E402
import bench_overhead  # noqa: E402
import bench_peers  # noqa: E402
import bench_probe  # noqa: E402
import bench_scaling  # noqa: E402
import bench_step  # noqa: E402
import page  # noqa: E402
import run  # noqa: E402

TOY = _common.Settings(size="toy")
GATE = _rows.gate.__wrapped__
SECTIONS = (bench_overhead, bench_peers, bench_cka, bench_memory, bench_scaling, bench_files)


@pytest.fixture(autouse=True)
def ungated(monkeypatch):
    """The kernels have their own tests; what the gate does with a failing one is tested here."""
    for module in SECTIONS:
        monkeypatch.setattr(module, "gate", lambda device: None)


def ran(section, results):
    arguments = [section, "--size", "toy", "--results", str(results)]
    outcome = CliRunner().invoke(run.main, arguments)
    assert outcome.exit_code == 0, outcome.output
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def named(rows, **facts):
    found = [row for row in rows if all(row[key] == value for key, value in facts.items())]
    assert found, facts
    return found


def test_overhead_tells_ratios_and_fixed_costs(tmp_path):
    rows = ran("overhead", tmp_path / "results.csv")
    assert tuple(rows[0]) == _rows.FIELDS
    for provider in ("capture alone", "distance", "cka", "all but cka", "all five metrics"):
        for quantity in ("per image", "whole run"):
            (row,) = named(rows, provider=provider, quantity=quantity)
            assert 0 < float(row["q1"]) <= float(row["ratio"]) <= float(row["q3"])
    assert len(named(rows, quantity="after the last batch")) == 6
    bare = named(rows, provider="bare forward", quantity="per image")[0]
    assert float(bare["ratio"]) == 1
    assert bare["section"] == "overhead"
    assert bare["torch"] == torch.__version__


def test_peers_agree_and_are_timed(tmp_path):
    rows = ran("peers", tmp_path / "results.csv")
    differences = named(rows, quantity="largest difference from attnprobe")
    assert len(differences) == 4
    assert all(float(row["value"]) < 1e-5 for row in differences)
    for provider in (bench_peers.OURS, bench_peers.EXTRACT, bench_peers.STORED):
        named(rows, provider=provider, quantity="whole run")


@pytest.mark.parametrize("statistic", bench_peers.Statistics._fields)
def test_a_peer_that_disagrees_is_not_timed(monkeypatch, statistic):
    def wrong(*arguments, **options):
        found = bench_peers.extract(*arguments, **options)
        return found._replace(**{statistic: 1.001 * getattr(found, statistic)})

    monkeypatch.setitem(bench_peers.PEERS, bench_peers.EXTRACT, wrong)
    with pytest.raises(click.ClickException, match="nothing was timed"):
        bench_peers.agreement(TOY)


@pytest.mark.parametrize("module", SECTIONS)
def test_a_kernel_that_disagrees_is_not_timed(monkeypatch, tmp_path, module):
    failed = SimpleNamespace(name="odd sizes", passed=False)
    monkeypatch.setattr(_rows.doctor, "checks", lambda device: [failed])
    monkeypatch.setattr(module, "gate", GATE)
    results = tmp_path / "results.csv"
    section = module.__name__.removeprefix("bench_")
    outcome = CliRunner().invoke(run.main, [section, "--size", "toy", "--results", str(results)])
    assert outcome.exit_code == 1
    assert "odd sizes" in outcome.output
    assert not results.exists()


def fake_package(shift):
    def matrix(models, images, batch, settings):
        options = {"cka_tokens": "flat", "cka_batch": batch, "resamples": 100}
        return bench_cka.ours(models, images, batch, settings, **options) + shift

    return matrix


def test_cka_is_timed_beside_what_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_cka, "present", lambda: {"torch_cka": "0.0"})
    monkeypatch.setitem(bench_cka.PEERS, "torch_cka", fake_package(1e-4))
    peaks = [_child.Peak(failed="out of memory"), *[_child.Peak(2 << 20, 1 << 20)] * 3]
    monkeypatch.setattr(bench_cka, "measured_apart", lambda *_: peaks.pop())
    rows = ran("cka", tmp_path / "results.csv")
    (difference,) = named(rows, quantity="largest difference from attnprobe")
    assert 0.9e-4 < float(difference["value"]) < 1.1e-4
    assert difference["note"].startswith("torch_cka 0.0")
    assert {row["provider"] for row in named(rows, quantity="whole run")} == {
        "bare forward",
        bench_cka.MEAN,
        bench_cka.FLAT,
        "torch_cka",
    }
    memory = named(rows, quantity="peak memory beyond the models")
    assert [row["value"] for row in memory] == ["1.0", "1.0", "1.0", ""]
    assert memory[-1]["note"].endswith("out of memory")


def test_cka_that_disagrees_is_not_timed(monkeypatch):
    monkeypatch.setitem(bench_cka.PEERS, "torch_cka", fake_package(0.01))
    with pytest.raises(click.ClickException, match="torch_cka"):
        bench_cka.agreement(TOY, {"torch_cka": "0.0"})


def test_an_absent_package_is_left_out_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(bench_cka, "PEERS", {})
    similarity = sys.modules["_similarity"]
    monkeypatch.setattr(similarity, "PACKAGES", {"nothing": "attnprobe-has-no-such-peer"})
    assert similarity.present() == {}
    assert "pip install attnprobe-has-no-such-peer" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_is_that_of_processes_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_memory, "PROVIDERS", (_common.BARE, bench_memory.EXTRACT))
    sizes = {"toy": ("ViT-Ti/16", "vit_tiny_patch16_224", 2, (512,))}
    monkeypatch.setattr(bench_memory, "CASES", sizes)
    rows = ran("memory", tmp_path / "results.csv")
    beyond = named(rows, quantity="peak memory beyond the loaded model")
    bare, maps = (float(row["value"]) for row in beyond)
    stored = 2 * 3 * 1025**2 * 4 / 2**20  # layers, heads, tokens; MiB
    assert maps > bare + stored
    assert float(beyond[1]["ratio"]) == pytest.approx(maps / bare, rel=1e-3)


def test_what_runs_out_of_memory_is_a_row_and_drops_out():
    calls = []

    def full():
        calls.append("full")
        raise torch.OutOfMemoryError("CUDA out of memory")

    def refuses():
        raise _common.PeerError("failed: NANs")

    providers = {"bare forward": lambda: {"whole run": 1.0}, "full": full, "nan": refuses}
    found = _common.interleave(providers, 3)
    assert calls == ["full"]
    bare, lost, refused = _rows.rows("peers", "case", found, TOY)
    assert (bare["value"], bare["note"]) == (1.0, "")
    assert (lost["value"], lost["note"]) == ("", "out of memory")
    assert refused["note"] == "failed: NANs"
    with pytest.raises(RuntimeError, match="size"):
        _common.interleave({"broken": lambda: torch.ones(2) @ torch.ones(3)}, 1)


def ended(returncode, stderr="", stdout=""):
    done = SimpleNamespace(returncode=returncode, stderr=stderr, stdout=stdout)
    return lambda *_, **__: done


def test_a_process_that_fails_is_out_of_memory_or_an_error(monkeypatch):
    monkeypatch.setattr(_child.subprocess, "run", ended(-9))
    assert _child.measured_apart("memory", {}, TOY).failed == "out of memory (signal 9)"
    monkeypatch.setattr(_child.subprocess, "run", ended(1, "KeyError: 'x'"))
    with pytest.raises(RuntimeError, match="KeyError"):
        _child.measured_apart("memory", {}, TOY)


@pytest.fixture
def launched(monkeypatch):
    """Runs what torchrun would, in this process; two processes see `seed` of their own."""
    shift = {1: 1.0, 2: 1.0}

    def launch(processes, job):
        values = dict(zip(job[2::2], job[3::2], strict=True))
        options = {"batch_size": int(values["--batch-size"]), "resamples": 100}
        result = attnprobe.analyze(job[1], values["-i"], metrics=["entropy"], **options)
        result.tables["entropy"]["value"] *= shift[processes]
        result.save(values["-o"])
        return ""

    monkeypatch.setattr(bench_scaling, "PROCESSES", (1, 2))
    monkeypatch.setattr(bench_scaling, "launch", launch)
    monkeypatch.setattr(bench_scaling, "places", lambda settings: 2)
    return shift


def test_scaling_tells_rates(launched, tmp_path):
    rows = ran("scaling", tmp_path / "results.csv")
    assert [row["provider"] for row in rows] == ["1 processes", "2 processes"]
    assert all(row["unit"] == "images/s" and float(row["value"]) > 0 for row in rows)


def test_processes_that_disagree_are_not_timed(launched):
    launched[2] = 1.001
    with pytest.raises(click.ClickException, match="2 processes"):
        list(bench_scaling.run(TOY))


def test_a_launch_that_fails_says_why(monkeypatch):
    said = "W torch\nerror: runs/x already holds files\nTraceback\nChildFailedError"
    monkeypatch.setattr(bench_scaling.subprocess, "run", ended(1, said))
    assert bench_scaling.launch(2, []) == "error: runs/x already holds files"
    monkeypatch.setattr(bench_scaling.subprocess, "run", ended(0, said))
    assert bench_scaling.launch(2, []) == ""


def test_files_tells_rates_starts_and_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_files, "COMMANDS", {"help": ["-m", "attnprobe", "--help"]})
    monkeypatch.setattr(bench_files.shutil, "which", lambda name: None)
    rows = ran("files", tmp_path / "results.csv")
    assert len(named(rows, quantity="rate")) == 4
    named(rows, provider="help", quantity="to the first word")
    named(rows, quantity="load and write", unit="s")
    assert float(named(rows, quantity="size")[0]["value"]) > 1


def test_photographs_are_seeded_and_of_usual_sizes(tmp_path):
    first, second = (_photos.photographs(tmp_path / name, 3) for name in ("a", "b"))
    files = sorted(first.iterdir())
    assert len(files) == 3
    for path in files:
        assert path.read_bytes() == (second / path.name).read_bytes()
        with Image.open(path) as image:
            assert all(224 <= side <= 400 for side in image.size)


def test_probe_benchmark(monkeypatch):
    kept = []
    monkeypatch.setattr(bench_probe, "append", kept.extend)
    monkeypatch.setattr(bench_probe, "PROBED", 8)
    arguments = ["--model", "test_vit", "--patch-size", "16", "--batch", "4", "--rounds", "2"]
    outcome = CliRunner().invoke(bench_probe.main, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0
    assert kept[0]["section"] == "probe"
    assert kept[0]["ratio"] > 0


def test_step_benchmark_writes_the_same_columns():
    case = SimpleNamespace(name="n", objective="mae", architecture="vit", batch=4)
    made = bench_step.rows(
        case, "cpu bf16, cpu seconds", {"official": [2.0, 4.0], "ours": [1.0, 1.0]}
    )
    assert tuple(made[1]) == _rows.FIELDS
    assert (made[1]["value"], made[1]["ratio"], made[1]["precision"]) == (1.0, 0.375, "bf16")


def row_of(**values):
    about = {"section": "peers", "case": "c", "provider": "p", "quantity": "whole run", "value": 2}
    facts = {"unit": "s", "images": 4, "batch": 2, "rounds": 3, "date": "2026-01-01", "commit": "a"}
    device = {"device": "CPU, 1 threads", "torch": "2", "timm": "1", "precision": "fp32"}
    return {k: str({**about, **facts, **device, **values}.get(k, "")) for k in _rows.FIELDS}


def test_the_page_shows_the_newest_rows():
    rows = [
        row_of(value=7.5, provider="gone"),
        row_of(value=3.5, commit="b"),
        row_of(value=2.5, commit="b", ratio=1.25, q1=1.2, q3=1.3),
        row_of(value=1.5, device="H100"),
        row_of(value=9.5, device="CPU, 2 threads", section="cka"),
        row_of(device="H100", provider="q", value="", note="out of memory"),
    ]
    text = page.page(page.newest(rows))
    assert "2.5 s, **1.25** [1.20, 1.30]" in text
    assert "1.5 s" in text
    assert "9.5 s" in text
    assert "| q | out of memory |" in text
    assert "3.5 s" not in text
    assert "7.5 s" not in text


def test_the_page_in_the_tree_is_made_of_the_rows_in_the_tree():
    with _rows.RESULTS.open(newline="") as file:
        rows = page.newest(csv.DictReader(file))
    assert (page.DOCS / "benchmarks.md").read_text() == page.page(rows)
    for name in page.FIGURES:
        if any(row["section"] == name for row in rows):
            assert (page.DOCS / f"benchmarks-{name}.svg").is_file()


@pytest.mark.parametrize("module", [_common, _rows, _page_figures, page])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
