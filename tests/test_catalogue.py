"""The catalogue agrees with timm's registry, is complete, and costs no import of torch."""

import re
import subprocess
import sys
from collections import Counter

import pytest
import timm

from attnprobe import catalogue as catalogues
from attnprobe import shipped
from attnprobe.catalogue import catalogue, own, records
from attnprobe.checkpoints import load
from attnprobe.errors import AttnprobeError, CheckpointError, OutputError
from attnprobe.formats import formats
from attnprobe.types import CheckpointSpec

LINE_UP = {  # of Xie et al. 2023
    "deit_base": ("supervised", "deit_base"),
    "mocov3_vit_base": ("contrastive", "vit_base"),
    "simmim_vit_base": ("mim", "beit_base"),
    "swin_base": ("supervised", "swin_base"),
    "simmim_swin_base": ("mim", "swin_base"),
    "simmim_swinv2_base": ("mim", "swinv2_base"),
}


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    path = tmp_path / "config" / "mine.toml"
    monkeypatch.setenv(own.VARIABLE, str(path))
    monkeypatch.setenv("ATTNPROBE_CACHE", str(tmp_path / "cache"))
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_catalogue_agrees_with_timm():
    known = set(timm.list_pretrained())
    for record in catalogue().values():
        assert timm.is_model(record.architecture), record.name
        if record.source.startswith("timm:"):
            tag = record.source.removeprefix("timm:")
            config = timm.get_pretrained_cfg(tag)
            assert tag in known
            assert tag.partition(".")[0] == record.architecture
            assert record.input_size == config.input_size, record.name
            assert (record.mean, record.std) == (config.mean, config.std), record.name


def test_the_catalogue_spans_objectives_sizes_and_families():
    found = catalogue().values()
    assert len(found) >= 100
    objectives = Counter(item.objective.removesuffix(records.FINE_TUNED) for item in found)
    assert set(objectives) == set(records.OBJECTIVES) - {"unknown"}
    assert min(objectives.values()) >= 2
    text = " ".join(item.architecture for item in found)
    for part in ("vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge", "swin_", "swinv2_"):
        assert part in text, part
    for name, (objective, family) in LINE_UP.items():
        record = catalogue()[name]
        assert record.objective == objective
        assert record.architecture.startswith(family)


def test_catalogue_records_are_complete():
    later = ("homepage", "file", "size", "sha256")  # known of some only
    known = {item.name for item in formats()}
    for record in catalogue().values():
        for field in records.FIELDS:
            assert getattr(record, field) or field in later, f"{record.name}: {field}"
        assert record.format in known, record.name
        assert not record.source.startswith("file:") or record.homepage, record.name
        assert not record.homepage or re.fullmatch(r"https://[\w./-]+", record.homepage)


def test_addresses_are_plain_and_named_once():
    sources = Counter(record.source for record in catalogue().values())
    for source, times in sources.items():
        assert times == 1 or source.startswith("file:checkpoint_"), source
        if "://" in source:
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+/[\w./-]+\.(pth|pth\.tar|pt)", source)


def test_the_catalogue_and_the_formats_are_torch_free():
    for code in ("attnprobe.catalogue as c, sys; c.catalogue()", "attnprobe.formats, sys"):
        check = f"import {code}; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", check], check=True)


def test_a_record_to_download_by_hand_says_from_where_and_to_where(tmp_path):
    with pytest.raises(CheckpointError, match=r"simmim_pretrain__vit_base") as caught:
        load("simmim_vit_base")
    assert "github.com/microsoft/SimMIM" in caught.value.remedy
    assert str(tmp_path / "cache" / "checkpoints" / "simmim_vit_base") in caught.value.remedy


def test_the_bundled_checkpoint_loads():
    record = catalogue()["vit_tiny_cifar10_supervised"]
    name = record.source.removeprefix("shipped:")
    try:
        folder = shipped.path("checkpoints")
    except AttnprobeError:
        folder = None
    if folder is None or not (folder / name).is_file():
        pytest.skip("the bundled checkpoint is not in this checkout")
    spec = load("vit_tiny_cifar10_supervised").spec
    assert isinstance(spec, CheckpointSpec)
    assert (spec.name, spec.source) == (record.name, record.name)
    assert spec.objective == "supervised"
    assert spec.input_size == record.input_size
    assert (spec.mean, spec.std) == (record.mean, record.std)
    assert spec.assumed == ()


def test_own_records_go_before_shipped_ones_and_it_is_said(mine):
    assert catalogues.origin("deit_base") == "shipped"
    write(mine, '[deit_base]\nsource = "timm:deit_base_patch16_384.fb_in1k"\n[x]\nsource = "a.pth"')
    assert catalogue()["deit_base"].source.endswith("384.fb_in1k")
    assert catalogues.origin("deit_base") == "own, over a shipped one"
    assert catalogues.origin("x") == "own"
    assert catalogues.origin("deit_tiny") == "shipped"


def test_adding_and_removing_keep_comments_and_order(mine):
    text = (
        '# the lab\'s\n\n[a]\nsource = "a.pth"  # of 2023\n\n# wait for B\n[c]\nsource = "c.pth"\n'
    )
    write(mine, text)
    added = records.record("b", {"source": "b.pth", "mean": (0.5, 0.25, 0.125)})
    own.add(added, mine)
    assert mine.read_text().startswith(text)
    assert list(own.records()) == ["a", "c", "b"]
    assert own.records()["b"] == added
    with pytest.raises(CheckpointError, match="record a already"):
        own.add(records.record("a", {"source": "other.pth"}), mine)
    own.add(records.record("a", {"source": "other.pth"}), mine, overwrite=True)
    own.remove("b", mine)
    assert mine.read_text().strip() == text.replace('"a.pth"', '"other.pth"').strip()
    with pytest.raises(CheckpointError, match="no record mae_vit_base") as caught:
        own.remove("mae_vit_base", mine)
    assert "it has: a, c" in caught.value.remedy


def test_a_catalogue_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        own.add(records.record("a", {"source": "a.pth"}), tmp_path / "file" / "mine.toml")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('[a]\nsource = "a.pth"\n\n[b]\nsource = 3\n', r"mine.toml, line 4: b: source = 3"),
        ("[a]\n", r"line 1: a has no source"),
        ("\n[a]\nsource = 'x'\ncolour = 1\n", r"line 2: a has unknown fields colour"),
        ("[a]\nsource = 'x'\nmean = 'no'\n", "mean = 'no' is not a list"),
        ("[a]\nsource = 'x'\ninput_size = [3, 224]\n", "is not three numbers"),
        ("[a]\nsource = 'x'\nobjective = 'mimm'\n", "'mimm' is not one of mim"),
        ("[a]\nsource = 'x'\nsha256 = 'abc'\n", "64 hexadecimal digits"),
        ("[a]\nsource = 'x'\nfile = '../x'\n", "plain file name"),
        ("[a]\nsource = 'x'\nsize = -1\n", "number of bytes"),
        ("[a]\nsource = 'http://a.org/x'\n", "https address"),
        ("[a]\nsource = 'https://me:secret@a.org/x'\n", "https address"),
        ("['a/b']\nsource = 'x'\n", "no name of a record"),
        ("a = 3\n", "line 1: a is no table"),
        ("[a]\nsource = 'x'\n[a]\n", r"is no catalogue: .*line 3"),
        ("[a\n", r"is no catalogue: .*line 1"),
    ],
)
def test_a_broken_catalogue_of_ones_own_is_named_with_its_line(mine, text, cause):
    write(mine, text)
    with pytest.raises(CheckpointError, match=cause) as caught:
        catalogue()
    assert str(mine) in caught.value.cause
    assert caught.value.remedy


def test_a_catalogue_of_bytes_is_refused(mine):
    write(mine, "")
    mine.write_bytes(b"\xff\xfe[a]")
    with pytest.raises(CheckpointError, match="is no catalogue"):
        catalogue()


def test_a_mistyped_name_is_answered_with_near_ones():
    with pytest.raises(CheckpointError, match="no mae_vit_bse") as caught:
        catalogues.find("mae_vit_bse")
    assert "mae_vit_base" in caught.value.remedy
