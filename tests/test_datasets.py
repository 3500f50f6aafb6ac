"""Labelled images with random access, their views, and how workers hand them over."""

import io
import json
import os
import pickle
import random
import struct
import sys
import tarfile

import numpy as np
import pytest
import torch
from photographs import encode, photograph
from PIL import Image
from torchvision.transforms import functional as vision

from attnprobe.datasets import Batches, Broken, TrainSet, loader, open_pictures, shards
from attnprobe.datasets.caching import cached
from attnprobe.errors import AttnprobeError, ImagesError

FILES = [encode(photograph(seed)) for seed in range(6)]
LABELS = [0, 1, 2, 0, 1, 2]
CLASSES = ("ant", "bee", "cat")


def pixels(image):
    return np.asarray(image)


def same_images(pictures, files=FILES):
    for index, data in enumerate(files):
        image = pictures.read(index)
        assert image.mode == "RGB"
        assert np.array_equal(pixels(image), pixels(Image.open(io.BytesIO(data))))
    assert len(pictures) == len(files)


def write_classes(root, files=FILES, labels=LABELS):
    for index, (data, label) in enumerate(zip(files, labels, strict=True)):
        path = root / CLASSES[label] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_npz(path, files=FILES, **arrays):
    held = {"label": np.array(LABELS), "classes": np.array(CLASSES), **arrays}
    held = {name: value for name, value in held.items() if value is not None}
    blob = np.frombuffer(b"".join(files), dtype=np.uint8)
    np.savez(path, jpeg=blob, offset=np.cumsum([0, *map(len, files)]), **held)
    return path


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder, *, name="set-{:03d}.tar", label="cls"):
    folder.mkdir(exist_ok=True)
    for shard in range(2):
        members = []
        for index in range(3 * shard, 3 * shard + 3):
            text = str(LABELS[index]) if label == "cls" else json.dumps({"label": LABELS[index]})
            members += [(f"a/{index:04d}.jpg", FILES[index])]
            members += [(f"a/{index:04d}.{label}", text.encode())] if label else []
        write_tar(folder / name.format(shard), members)
    return folder


def test_a_folder_of_classes(tmp_path):
    root = write_classes(tmp_path)
    (root / "bat").mkdir()  # a class without images here keeps its number
    pictures = open_pictures(root)
    assert pictures.classes == ("ant", "bat", "bee", "cat")
    assert pictures.labels.dtype == np.int64
    assert pictures.labels.tolist() == [0, 0, 2, 2, 3, 3]
    assert pictures.name(2) == "bee/1.jpg"
    same_images(pictures, [FILES[index] for index in (0, 3, 1, 4, 2, 5)])
    assert pictures.hashed == "listing"


def test_a_folder_with_images_at_the_top_has_no_labels(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "x.jpg").write_bytes(FILES[0])
    pictures = open_pictures(tmp_path)
    assert (pictures.labels, pictures.classes, len(pictures)) == (None, (), 7)


def test_a_split_folder_is_taken_and_a_missing_one_is_not(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "validation", FILES[:3], LABELS[:3])
    assert len(open_pictures(tmp_path)) == 6
    assert len(open_pictures(tmp_path, split="val")) == 3
    with pytest.raises(ImagesError, match="no split 'test', only train, validation"):
        open_pictures(tmp_path, split="test")


def test_a_class_called_train_is_a_class(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "t.jpg").write_bytes(FILES[0])
    assert open_pictures(tmp_path).classes == (*CLASSES, "train")


def test_names_of_any_bytes_are_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / os.fsdecode(b"\xff.jpg")).write_bytes(FILES[0])
    pictures = open_pictures(tmp_path)
    assert pictures.name(0) == r"a/\xff.jpg"
    same_images(pictures, FILES[:1])


def test_npz_lists_files_and_bundled(tmp_path):
    pictures = open_pictures(write_npz(tmp_path / "set.npz"))
    assert (pictures.labels.tolist(), pictures.classes) == (LABELS, CLASSES)
    assert (pictures.hashed, pictures.name(4)) == ("contents", "set.npz#00004")
    same_images(pictures)
    unnamed = open_pictures(write_npz(tmp_path / "unnamed.npz", classes=None))
    assert unnamed.classes == ("0", "1", "2")
    assert open_pictures(write_npz(tmp_path / "bare.npz", label=None)).labels is None
    write_classes(tmp_path / "photos")
    (tmp_path / "list.txt").write_text("photos/ant/0.jpg\nphotos/bee/1.jpg\n")
    same_images(open_pictures(tmp_path / "list.txt"), FILES[:2])
    same_images(open_pictures(tmp_path / "photos/bee/1.jpg"), FILES[1:2])
    bundled = open_pictures("bundled")
    assert len(bundled) >= 64
    assert bundled.read(0).mode == "RGB"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": np.zeros(5, dtype=int)}, r"labels of shape \(5,\)"),
        ({"label": np.zeros(6)}, "type float64"),
        ({"label": np.array([0, 1, 2, 3, 0, 0])}, "labels from 0 to 3 for 3 classes"),
        ({"label": np.array([0, 1, -1, 2, 0, 0])}, "labels from -1 to 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(ImagesError, match=message):
        open_pictures(write_npz(tmp_path / "set.npz", **arrays))


def test_the_hash_knows_contents_labels_and_names(tmp_path):
    found = {
        open_pictures(write_npz(tmp_path / "a.npz")).sha256,
        open_pictures(write_npz(tmp_path / "b.npz", [*FILES[:5], FILES[0]])).sha256,
        open_pictures(write_npz(tmp_path / "c.npz", label=np.array(LABELS[::-1]))).sha256,
    }
    assert len(found) == 3
    assert open_pictures(write_npz(tmp_path / "d.npz")).sha256 in found
    before = open_pictures(write_classes(tmp_path / "photos")).sha256
    assert open_pictures(tmp_path / "photos").sha256 == before
    (tmp_path / "photos/ant/0.jpg").write_bytes(FILES[0] + b"\0")
    assert open_pictures(tmp_path / "photos").sha256 != before


@pytest.mark.parametrize("label", ["cls", "json"])
def test_shards_are_indexed_in_order(tmp_path, label):
    folder = write_shards(tmp_path / "set", label=label)
    for source in (
        folder,
        f"{folder}/set-{{000..001}}.tar",
        f"{folder}/set-000.tar,{folder}/set-001.tar",
    ):
        pictures = open_pictures(source)
        assert pictures.labels.tolist() == LABELS
        assert pictures.name(4) == "set-001.tar:a/0004.jpg"
        same_images(pictures)
    assert open_pictures(folder).sha256 == pictures.sha256


def test_one_tar_without_labels(tmp_path):
    members = [("x.v2.jpg", FILES[1]), ("x.v1.jpg", FILES[0]), ("notes.txt", b"")]
    pictures = open_pictures(write_tar(tmp_path / "a.tar", members))
    assert pictures.labels is None
    same_images(pictures, FILES[:2])


def test_shards_that_are_named_after_splits(tmp_path):
    write_shards(tmp_path, name="inet-train-{:03d}.tar")
    write_tar(tmp_path / "inet-validation-0.tar", [("v.jpg", FILES[0]), ("v.cls", b"1")])
    assert open_pictures(tmp_path).labels.tolist() == LABELS
    assert open_pictures(tmp_path, split="val").labels.tolist() == [1]


def test_links_and_escapes_in_a_tar_are_left_alone(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("../up.jpg", FILES[1]), ("ok.jpg", FILES[0])])
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("link.jpg")
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
    same_images(open_pictures(path), FILES[:1])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", FILES[0]), ("a.cls", b"one")], "a.cls holds no label"),
        ([("a.jpg", FILES[0]), ("a.json", b"[" * 100_000)], "a.json holds no label"),
        ([("a.jpg", FILES[0]), ("a.json", b'{"label": 1.5}')], "no whole number"),
        ([("a.jpg", FILES[0]), ("a.cls", b"1" * 2_000_000)], "too many for a label"),
        ([("a.jpg", FILES[0]), ("a.cls", b"1"), ("b.jpg", FILES[1])], "b.jpg has no label"),
        ([("a.jpg", FILES[0]), ("a.seg.png", FILES[1]), ("a.cls", b"1")], "2 images for a"),
        ([("a.txt", b"")], "holds no images"),
    ],
)
def test_shards_with_unclear_labels_are_refused(tmp_path, members, message):
    with pytest.raises(ImagesError, match=message):
        open_pictures(write_tar(tmp_path / "bad.tar", members))


def test_a_broken_shard_is_named(tmp_path):
    folder = write_shards(tmp_path / "set")
    with pytest.raises(ImagesError, match=r"set-002.tar does not exist"):
        open_pictures(f"{folder}/set-{{000..002}}.tar")
    whole = (folder / "set-001.tar").read_bytes()
    for damaged in (whole[:1500], b"x" * 2000, b""):
        (folder / "set-001.tar").write_bytes(damaged)
        with pytest.raises(ImagesError, match=r"set-001.tar is not a complete") as caught:
            open_pictures(folder)
        assert caught.value.remedy


def test_ranges_that_explode_are_refused():
    with pytest.raises(ImagesError, match="names more than"):
        shards.expand("{0..99999}-{0..99999}-{0..99999}.tar")
    with pytest.raises(ImagesError, match="twice"):
        shards.expand("a.tar,a.tar")


@pytest.fixture
def table():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "photo": datasets.Image(),
            "animal": datasets.ClassLabel(names=list(CLASSES)),
        }
    )
    rows = {
        "id": list(range(6)),
        "photo": [{"bytes": data, "path": None} for data in FILES],
        "animal": LABELS,
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_saved_set_of_hugging_face(tmp_path, table):
    import datasets

    table.save_to_disk(tmp_path / "one")
    parts = {"train": table, "validation": table.select([4, 0])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "many")
    for name in ("one", "many"):
        pictures = open_pictures(tmp_path / name)
        assert (pictures.labels.tolist(), pictures.classes) == (LABELS, CLASSES)
        same_images(pictures)
        same_images(pickle.loads(pickle.dumps(pictures)))
    val = open_pictures(tmp_path / "many", split="val")
    assert val.labels.tolist() == [1, 0]
    same_images(val, [FILES[4], FILES[0]])
    with pytest.raises(ImagesError, match="no split 'test'"):
        open_pictures(tmp_path / "many", split="test")
    assert open_pictures(tmp_path / "one", label_column="id").classes[-1] == "5"
    with pytest.raises(ImagesError, match="no column 'pixels', only id, photo, animal"):
        open_pictures(tmp_path / "one", image_column="pixels")


def test_hidden_labels_and_empty_rows_of_hugging_face(tmp_path, table):
    import datasets

    rows = {"image": [None, {"bytes": FILES[0], "path": None}], "label": [-1, -1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    pictures = open_pictures(tmp_path)
    assert pictures.labels is None
    with pytest.raises(ImagesError, match="the row holds no image"):
        pictures.read(0)
    assert pictures.read(1).size == (48, 40)


def test_parquet_files(tmp_path, table, monkeypatch):
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    table.to_parquet(folder / "train-0.parquet")
    pictures = open_pictures(folder)
    assert (pictures.labels.tolist(), pictures.classes) == (LABELS, CLASSES)
    same_images(pictures)
    rows = {"image": [{"bytes": data} for data in FILES], "label": ["b", "a", "b", "a", "b", "b"]}
    parquet.write_table(pa.table(rows), tmp_path / "plain.parquet")
    plain = open_pictures(tmp_path / "plain.parquet")
    assert (plain.labels.tolist(), plain.classes) == ([1, 0, 1, 0, 1, 1], ("a", "b"))
    same_images(plain)
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(ImagesError, match="cannot be read as Parquet"):
        open_pictures(tmp_path / "bad.parquet")


def test_a_hub_that_cannot_be_reached_is_one_message(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def offline(*args, **options):
        raise ConnectionError("Couldn't reach the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    for name in ("hf:some/set", "hfds/some/set"):
        with pytest.raises(ImagesError, match=r"hf:some/set .*\(Couldn't reach the Hub\)") as error:
            open_pictures(name)
        assert "without a network" in error.value.remedy


def test_a_config_of_the_hub(monkeypatch, table):
    import datasets

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **_: asked.append(args) or {"test": table}
    )
    assert len(open_pictures("hf:some/set:small", split="val")) == 6
    assert asked == [("some/set", "small")]


def test_a_missing_package_is_told(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (tmp_path, "hf:some/set"):
        with pytest.raises(ImagesError) as caught:
            open_pictures(source)
        assert caught.value.remedy == "pip install 'attnprobe[data]'"


def write_mnist(root):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        head = struct.pack(">IIII", 0x803, 4, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + values.tobytes())
        labels = struct.pack(">II", 0x801, 4) + bytes([3, 1, 0, 9])
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return values


def test_a_torchvision_set_by_timms_name(tmp_path):
    values = write_mnist(tmp_path)
    for split in ("train", "val"):
        pictures = open_pictures("torch/mnist", split=split, root=tmp_path)
        assert pictures.labels.tolist() == [3, 1, 0, 9]
        assert (len(pictures.classes), pictures.hashed) == (10, "contents")
        for index in range(4):
            assert np.array_equal(pixels(pictures.read(index))[..., 1], values[index])
    assert len(pictures.sha256) == 64


def test_a_torchvision_folder_is_read_file_by_file(tmp_path):
    write_classes(tmp_path / "train")
    (tmp_path / "train/ant/0.jpg").write_bytes(b"no")
    pictures = open_pictures("torch/image_folder", root=tmp_path)
    assert pictures.classes == CLASSES
    with pytest.raises(ImagesError, match="not an image"):
        pictures.read(0)
    assert pictures.read(1).mode == "RGB"
    assert pictures.hashed == "listing"
    assert pictures.sha256


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torch/cifar10", {}, "needs the folder"),
        ("torch/cifar10", {"root": "absent"}, "cannot be opened in absent"),
        ("torch/nothing", {"root": "absent"}, "Unknown torchvision"),
        ("tfds/cifar10", {"root": "absent"}, "only be read as a stream"),
        ("wds/set", {}, "only be read as a stream"),
        ("nowhere", {}, "nowhere does not exist"),
        ("torch", {}, "torch does not exist"),
    ],
)
def test_what_is_not_there_is_refused(name, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImagesError, match=message) as caught:
        open_pictures(name, **options)
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def views(image):
    """Draw from every generator that augmentations use."""
    draws = [float(torch.rand(())), random.random(), float(np.random.normal())]  # noqa: NPY002
    return {"image": vision.pil_to_tensor(image), "draws": torch.tensor(draws)}


@pytest.fixture
def trainset(tmp_path):
    files = [*FILES[:2], b"broken", *FILES[3:]]
    return TrainSet(open_pictures(write_npz(tmp_path / "set.npz", files)), views, seed=5)


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_an_item_depends_on_seed_epoch_and_index_alone(trainset):
    first = trainset[(3, 1)]
    torch.rand(5), random.random(), np.random.rand(3)  # noqa: NPY002
    assert equal(trainset[(3, 1)], first)
    assert equal(trainset.__getitems__([(0, 0), (3, 1)])[1], first)
    assert first["label"].item() == 1 == first["index"].item()
    assert {first[name].dtype for name in ("label", "index", "broken")} == {torch.int64}
    assert first["broken"].item() == 0
    others = [trainset[key] for key in ((4, 1), (3, 0))]
    others.append(TrainSet(trainset.pictures, views, seed=6)[(3, 1)])
    for other in others:
        for place in range(3):
            assert other["draws"][place] != first["draws"][place]


def test_generators_of_the_main_process_go_on_undisturbed(trainset):
    def draw():
        return (float(torch.randn(())), random.gauss(0, 1), np.random.randn())  # noqa: NPY002

    def start():
        torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002

    start()
    expected = [draw() for _ in range(4)]
    start()
    found = []
    for _ in range(4):
        found.append(draw())  # an odd number of normals: half of a pair is pending
        trainset[(0, 0)], list(loader(trainset, order(), workers=0, pin=False))
    assert found == expected


def test_generators_go_on_after_an_error(trainset):
    def refuse(image):
        raise RuntimeError("no view")

    trainset.views = refuse
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no view"):
        trainset[(0, 0)]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_broken_image_is_replaced_and_told(trainset):
    item = trainset[(0, 2)]
    assert (item["broken"].item(), item["index"].item()) == (1, 2)
    taken = {tuple(trainset[(epoch, 2)]["image"].flatten()[:50].tolist()) for epoch in range(20)}
    assert len(taken) > 2
    assert equal(trainset[(0, 2)], item)
    shown = [
        i for i in range(6) if i != 2 and torch.equal(trainset[(0, i)]["image"], item["image"])
    ]
    assert item["label"].item() == LABELS[shown[0]]
    broken = Broken()
    for batch in loader(trainset, order(), workers=0, pin=False):
        broken.add(batch)
    assert broken.names(trainset.pictures) == ("set.npz#00002",)


def test_without_labels_there_is_no_label(tmp_path):
    pictures = open_pictures(write_npz(tmp_path / "set.npz", label=None))
    assert "label" not in TrainSet(pictures, views, seed=0)[(0, 0)]


def order(**options):
    return Batches(6, 2, **{"seed": 1, "start": 1, "stop": 7, **options})


def test_batches_are_the_same_for_any_number_of_workers(trainset):
    expected = list(loader(trainset, order(), workers=0, pin=False))
    assert [batch["index"].shape for batch in expected] == [(2,)] * 6
    before = torch.get_rng_state()
    for workers in (1, 2):
        found = list(loader(trainset, order(), workers=workers, pin=False))
        assert len(found) == len(expected)
        assert all(map(equal, found, expected))
    assert torch.equal(torch.get_rng_state(), before)


def test_all_that_a_started_process_needs_can_be_sent_to_it(trainset):
    data = loader(trainset, order(), workers=1, pin=False).data
    parts = (data.dataset, data.collate_fn, data.worker_init_fn)
    dataset, collate, _ = pickle.loads(pickle.dumps(parts))
    keys = next(iter(order()))
    assert equal(collate(dataset.__getitems__(keys)), collate(trainset.__getitems__(keys)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_broken_images_is_refused(tmp_path, workers):
    pictures = open_pictures(write_npz(tmp_path / "set.npz", [b"x"] * 6))
    batches = loader(TrainSet(pictures, views, seed=0), order(), workers=workers, pin=False)
    with pytest.raises(ImagesError) as caught:
        next(iter(batches))
    assert "nor can 20 others" in caught.value.cause
    assert caught.value.remedy.startswith("check the files")
    assert "Traceback" not in str(caught.value)


def test_a_negative_number_of_workers_is_refused(trainset):
    with pytest.raises(AttnprobeError, match="-1 workers"):
        loader(trainset, order(), workers=-1, pin=False)


def test_a_cache_changes_nothing(trainset):
    kept = TrainSet(trainset.pictures, views, seed=5, cache=True)
    for index in range(6):
        assert equal(kept[(1, index)], trainset[(1, index)])
    assert kept.source.pixels.data.nbytes == 5 * 48 * 40 * 3
    with pytest.raises(ImagesError, match="would take about") as caught:
        cached(trainset.pictures, limit=20_000)
    assert caught.value.remedy.startswith("leave the cache out")
