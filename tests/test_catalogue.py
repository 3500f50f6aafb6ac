"""The catalogue agrees with timm's registry, is complete, and costs no import of torch."""

import subprocess
import sys
from dataclasses import fields

import pytest
import timm

from attnprobe import shipped
from attnprobe.catalogue import CheckpointRecord, catalogue
from attnprobe.checkpoints import load
from attnprobe.errors import AttnprobeError, CheckpointError
from attnprobe.types import CheckpointSpec


def test_catalogue_agrees_with_timm():
    known, records = set(timm.list_pretrained()), catalogue()
    assert len(records) >= 20
    for record in records.values():
        assert timm.is_model(record.architecture), record.name
        if record.source.startswith("timm:"):
            tag = record.source.removeprefix("timm:")
            config = timm.get_pretrained_cfg(tag)
            assert tag in known
            assert tag.partition(".")[0] == record.architecture
            assert record.input_size == config.input_size, record.name
            assert (record.mean, record.std) == (config.mean, config.std), record.name


def test_catalogue_records_are_complete_and_torch_free():
    for record in catalogue().values():
        for item in fields(CheckpointRecord):
            assert getattr(record, item.name) or item.name in ("homepage", "sha256"), record.name
    code = "import attnprobe.catalogue as c, sys; c.catalogue(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import attnprobe.formats as f, sys; f.formats(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_record_to_download_by_hand_says_from_where():
    with pytest.raises(CheckpointError, match=r"simmim_pretrain__vit_base") as caught:
        load("simmim_vit_base")
    assert "github.com/microsoft/SimMIM" in caught.value.remedy


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
    assert spec.objective == "supervised"
    assert spec.input_size == record.input_size
    assert (spec.mean, spec.std) == (record.mean, record.std)
    assert spec.assumed == ()
