"""A file's own metadata is checked before it is believed."""

import json
from pathlib import Path

import pytest

from attnprobe.checkpoints.reading.metadata import parse
from attnprobe.errors import CheckpointError


def header(**own):
    return {"attnprobe": json.dumps(own), "format": "pt"}


def test_known_fields_are_returned_and_others_ignored():
    own = {"heads": 3, "mean": [0.5, 0.5, 0.5], "input_size": [3, 32, 32], "objective": "mim"}
    assert parse(Path("a"), header(**own, colour="red", name=None)) == own
    assert parse(Path("a"), {"format": "pt"}) == {}


@pytest.mark.parametrize(
    "own",
    [
        {"heads": "three"},
        {"heads": 0},
        {"mean": 0.5},
        {"std": ["a"]},
        {"input_size": [32, 32]},
        {"input_size": [3, 0, 32]},
        {"crop_pct": True},
        {"model_args": []},
        {"name": 7},
    ],
)
def test_fields_of_the_wrong_type_are_named(own):
    with pytest.raises(CheckpointError, match=f"b.safetensors.*{next(iter(own))}") as caught:
        parse(Path("b.safetensors"), header(**own))
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100000])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(CheckpointError, match="metadata"):
        parse(Path("b"), {"attnprobe": text})
