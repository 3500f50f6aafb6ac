"""Data sets that outgrow a folder are measured like a folder of the same images."""

import hashlib
import io

import pytest
import torch
from PIL import Image

import attnprobe
from attnprobe.datasets.candidates import is_packed, open_set
from attnprobe.errors import ImagesError
from tests.photographs import SPEC, drain
from tests.test_analysis import small_model, values
from tests.test_datasets import FILES, table, write_classes, write_shards, write_tar  # noqa: F401


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    root.mkdir()
    for index, data in enumerate(FILES):
        (root / f"{index}.jpg").write_bytes(data)
    return root


def test_shards_hold_the_same_pixels_as_a_folder(tmp_path, folder):
    _, expected, _ = drain(open_set(folder, spec=SPEC))
    shards = write_shards(tmp_path / "shards")
    for source in (shards, f"{shards}/set-{{000..001}}.tar"):
        images = open_set(source, spec=SPEC)
        for workers in (0, 2):
            ids, x, batches = drain(images, workers=workers)
            assert torch.equal(x, expected)
            assert ids[0] == "set-000.tar:a/0000.jpg"
            assert len(set(ids)) == 6
        digests = [row.tobytes() for batch in batches for row in batch.digests]
        assert digests == [hashlib.sha256(data).digest() for data in FILES]


def test_a_broken_member_is_skipped_and_named(tmp_path):
    members = [("0.jpg", FILES[0]), ("1.jpg", b"junk"), ("2.jpg", FILES[2])]
    (tmp_path / "set").mkdir()
    write_tar(tmp_path / "set/a.tar", members)
    images = open_set(tmp_path / "set", spec=SPEC)
    assert drain(images)[0] == ["a.tar:0.jpg", "a.tar:2.jpg"]
    assert images.skipped[0].startswith("a.tar:1.jpg: not an image")


def test_a_split_is_taken_and_named_where_there_is_none(tmp_path):
    write_shards(tmp_path, name="inet-train-{:03d}.tar")
    write_shards(tmp_path, name="inet-val-{:03d}.tar")
    assert {name[:8] for name in open_set(tmp_path, spec=SPEC).ids} == {"inet-val"}
    train = open_set(tmp_path, spec=SPEC, split="train")
    assert {name[:10] for name in train.ids} == {"inet-train"}
    with pytest.raises(ImagesError, match="no split 'extra'"):
        open_set(tmp_path, spec=SPEC, split="extra")


def test_hugging_face_and_parquet(tmp_path, table, folder, monkeypatch):  # noqa: F811
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    _, expected, _ = drain(open_set(folder, spec=SPEC))
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "set.parquet")
    for source in (tmp_path / "saved", tmp_path / "set.parquet"):
        ids, x, _ = drain(open_set(source, spec=SPEC))
        assert torch.equal(x, expected)
        assert len(set(ids)) == 6


def test_a_folder_of_images_stays_one(tmp_path):
    root = write_classes(tmp_path / "classes")
    write_tar(root / "backup.tar", [("0.jpg", FILES[0])])
    (root / "loose.jpg").write_bytes(FILES[0])
    assert not is_packed(root)
    assert len(open_set(root, spec=SPEC).ids) == 7
    assert not is_packed("nowhere")
    with pytest.raises(ImagesError, match="does not exist"):
        open_set(tmp_path / "nowhere", spec=SPEC)


def test_images_without_files_are_hashed_by_their_pixels(tmp_path, monkeypatch):
    from attnprobe.datasets import candidates
    from attnprobe.datasets.pictures import labelled

    class Decoded:
        hashed = "contents"

        def __len__(self):
            return 2

        def name(self, index):
            return f"decoded#{index}"

        def read(self, index):
            return Image.open(io.BytesIO(FILES[index])).convert("RGB")

        def facts(self):
            return []

    pictures = labelled("decoded", Decoded())
    monkeypatch.setattr(candidates, "open_pictures", lambda source, split: pictures)
    _, _, batches = drain(open_set("hf:decoded", spec=SPEC))
    digests = [row.tobytes() for batch in batches for row in batch.digests]
    assert len(set(digests)) == 2


def test_shards_are_measured_like_the_folder(tmp_path, folder):
    shards = write_shards(tmp_path / "shards")
    model = small_model()
    here = attnprobe.analyze(model, folder, ["entropy"])
    there = attnprobe.analyze(model, shards, ["entropy"], workers=1)
    assert (values(here, "entropy") == values(there, "entropy")).all()
    assert here.provenance.images_sha256 != there.provenance.images_sha256  # ids differ
