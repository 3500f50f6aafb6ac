"""`attnprobe checkpoints` and the filters of `attnprobe list checkpoints`, as people type them."""

import json

import pytest

from attnprobe import cli
from attnprobe.catalogue import own
from attnprobe.checkpoints.origins import cache


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "mine.toml"))
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("ATTNPROBE_OFFLINE", "1")


@pytest.fixture
def run(capsys):
    def attnprobe(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return attnprobe


def names(run, *filters):
    status, out, _ = run("list", "checkpoints", *filters, "--json")
    assert status == 0
    return [row["name"] for row in json.loads(out)]


def test_filters_narrow_the_list(run):
    everything = names(run)
    found = names(run, "--objective", "mim", "--arch", "vit_base")
    assert "mae_vit_base" in found
    assert "deit_base" not in found
    assert "dino_vit_small" not in found
    assert "simmim_vit_base" in names(run, "--arch", "b*_base_*")
    assert "simmim_vit_base" not in names(run, "--arch", "base_*")
    assert "simmim_swin_base" not in names(run, "--arch", "swinv2*")
    assert names(run, "--name", "MAE_vit_hug?") == ["mae_vit_huge"]
    assert 0 < len(names(run, "--licence", "mit")) < len(everything)


def test_nothing_found_is_no_failure_and_says_what_there_is(run):
    assert names(run, "--objective", "telepathy") == []
    status, out, err = run("list", "checkpoints", "--objective", "telepathy")
    assert (status, out) == (0, "")
    assert "no checkpoint has objective 'telepathy'" in err
    assert "self-distillation" in err


def test_other_kinds_have_no_filters(run):
    status, _, err = run("list", "formats", "--arch", "vit")
    assert status == 2
    assert "--arch filters checkpoints, not formats" in err


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_and_names_stay_whole(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run("list", "checkpoints")
    assert max(map(len, out.splitlines())) <= columns
    rows = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert set(names(run)) <= rows


def test_a_record_is_added_listed_shown_and_removed(run, checkpoint):
    status, _, err = run("checkpoints", "add", "mine", "--source", str(checkpoint))
    assert (status, err) == (0, f"wrote mine to {own.path()}\n")
    status, out, _ = run("checkpoints", "show", "mine", "--json")
    shown = json.loads(out)
    assert (shown["from"], shown["source"]) == ("own", str(checkpoint))
    assert len(shown["sha256"]) == 64
    status, out, _ = run("checkpoints", "show", "mine")
    assert ["source", str(checkpoint)] in [line.split() for line in out.splitlines()]
    _, out, _ = run("list", "checkpoints", "--name", "mine")
    assert "own" in out
    status, out, _ = run("checkpoints", "fetch", "mine")
    assert out == f"{checkpoint}\nsha256 {shown['sha256']}\n"
    status, _, err = run("checkpoints", "add", "mine", "--source", str(checkpoint))
    assert status == 1
    assert "--overwrite" in err
    status, _, _ = run("checkpoints", "remove", "mine")
    assert status == 0
    assert "mine" not in names(run)


def test_an_own_record_over_a_shipped_one_is_said(run):
    source = "timm:deit_base_patch16_384.fb_in1k"
    _, _, err = run("checkpoints", "add", "deit_base", "--source", source)
    assert "now means your record" in err
    _, out, _ = run("list", "checkpoints", "--name", "deit_base*")
    assert "over a shipped one" in " ".join(out.split())


def test_a_record_goes_to_the_file_that_is_named(run, tmp_path):
    target = tmp_path / "lab" / "shared.toml"
    status, _, _ = run(
        *("checkpoints", "add", "a", "--source", "https://a.org/vit.pth", "--to", str(target)),
        *("--mean", "0.1", "0.2", "0.3", "--objective", "contrastive"),
    )
    assert status == 0
    assert "mean = [0.1, 0.2, 0.3]" in target.read_text()
    assert not own.path().exists()


def test_fetching_offline_says_what_to_place_where(run, tmp_path):
    status, out, err = run("checkpoints", "fetch", "mocov3_vit_base")
    assert (status, out) == (1, "")
    assert "ATTNPROBE_OFFLINE is set" in err
    place = tmp_path / "cache" / "checkpoints" / "mocov3_vit_base" / "vit-b-300ep.pth.tar"
    assert f"place it at {place}" in err
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    status, out, _ = run("checkpoints", "fetch", "mocov3_vit_base", "--json")
    assert json.loads(out)[0]["path"] == str(place)


def test_an_unknown_name_is_told_before_anything_is_fetched(run):
    status, _, err = run("checkpoints", "fetch", "mocov3_vit_base", "mocov3_vit_bas")
    assert status == 1
    assert "the catalogue has no mocov3_vit_bas" in err
    assert "did you mean one of: mocov3_vit_base" in err


def test_an_interrupted_fetch_says_how_to_go_on(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("attnprobe.checkpoints.origins.sources.of_record", stop)
    status, _, err = run("checkpoints", "fetch", "mocov3_vit_base")
    assert status == cli.EXIT_INTERRUPTED
    assert err == "interrupted; the same command goes on from here\n"


def test_a_broken_catalogue_is_one_error_with_its_line(run):
    own.path().write_text("[a]\nsource = 'x'\n[b\n")
    status, _, err = run("list", "checkpoints")
    assert status == 1
    assert err.startswith(f"error: {own.path()} is no catalogue: ")
    assert "line 3" in err


def test_a_broken_catalogue_hinders_no_path(run, checkpoint):
    own.path().write_text("[b\n")
    status, out, _ = run("inspect", str(checkpoint), "--json")
    assert status == 0
    assert json.loads(out)
