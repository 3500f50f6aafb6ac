"""Sources: paths, names, addresses and repositories of a hub, each found or refused plainly."""

import hashlib
import json

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from served import serving

from attnprobe import catalogue
from attnprobe.catalogue import own
from attnprobe.checkpoints import load, recording
from attnprobe.checkpoints.origins import cache, network, repositories, sources
from attnprobe.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(MODEL, depth=2, num_classes=3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def server():
    with serving() as site:
        yield site


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "mine.toml"))
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    for name in ("ATTNPROBE_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(server):
    server.__dict__.update(type(server)().__dict__ | {"address": server.address})
    return server


@pytest.fixture
def hub(site, tmp_path, monkeypatch):
    """A hub on this machine; yields what puts files into its repository."""
    monkeypatch.setattr(constants, "ENDPOINT", site.address)
    template = site.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def publish(**files):
        info = {"id": "lab/vit", "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
        for revision in ("main", "v2", COMMIT):
            page = f"/api/models/lab/vit/revision/{revision}"
            site.files[page] = json.dumps(info).encode()
            site.headers[page] = {"Content-Type": "application/json"}
            for name, content in files.items():
                path = f"/lab/vit/resolve/{revision}/{name}"
                site.files[path] = content
                site.headers[path] = {"X-Repo-Commit": COMMIT}

    return publish


def fetched(site):
    paths = [path for method, path, _ in site.requests if method == "GET"]
    return {path.rpartition("/")[2] for path in paths if "/resolve/" in path}


def mine(**fields):
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    own.path().write_text("\n".join(["[mine]", *lines]))


def test_a_path_goes_before_a_name(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deit_base").write_bytes(weights.read_bytes())
    located = sources.resolve("deit_base")
    assert (located.record, located.timm) == (None, "")
    assert located.path.name == "deit_base"
    (tmp_path / "deit_base").unlink()
    assert sources.resolve("deit_base").record.name == "deit_base"


def test_neither_path_nor_name_is_refused():
    with pytest.raises(CheckpointError, match="no checkpoint at nothing_of_the_kind"):
        sources.resolve("nothing_of_the_kind")


def test_an_own_record_of_a_file_gives_name_objective_and_check(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    mine(source=str(weights), objective="mim", sha256=digest)
    spec = load("mine").spec
    assert (spec.name, spec.source, spec.objective) == ("mine", "mine", "mim")
    assert spec.sha256 == digest
    mine(source=str(weights), sha256="0" * 64)
    with pytest.raises(CheckpointError, match=f"is not mine: its sha256 is {digest}"):
        load("mine")


def test_an_address_of_the_catalogue_is_downloaded_and_loaded(site, weights):
    site.files["/vit.safetensors"] = weights.read_bytes()
    address = f"{site.address}/vit.safetensors"
    with pytest.raises(CheckpointError, match="the catalogue names no") as caught:
        load(address)
    assert "checkpoints add" in caught.value.remedy
    assert not site.requests
    mine(source=address)
    assert load(address).spec.name == "mine"
    assert load("mine").spec.source == "mine"
    assert len(site.asked()) == 1
    assert sources.resolve("mine").path == cache.folder() / "mine" / "vit.safetensors"


def test_an_address_that_is_not_https_says_so():
    with pytest.raises(CheckpointError, match="only https addresses are fetched"):
        sources.resolve("http://example.org/vit.pth")


def test_a_file_placed_by_hand_is_found(weights):
    mine(source="file:model.safetensors", homepage="https://a.org")
    with pytest.raises(CheckpointError, match=r"publish model\.safetensors") as caught:
        load("mine")
    place = cache.folder() / "mine" / "model.safetensors"
    assert str(place) in caught.value.remedy
    place.parent.mkdir(parents=True)
    place.write_bytes(weights.read_bytes())
    assert load("mine").spec.name == "mine"


def test_a_repository_gives_weights_and_configuration_only(site, hub, weights):
    hub(
        **{
            "README.md": b"read me",
            "modeling.py": b"raise SystemExit",
            "config.json": b"{}",
            "pytorch_model.bin": b"not taken",
            "model.safetensors": weights.read_bytes(),
        }
    )
    loaded = load("hf:lab/vit")
    assert loaded.spec.name == "vit"
    assert loaded.spec.source == f"hf:lab/vit@{COMMIT}"
    assert fetched(site) == {"config.json", "model.safetensors"}
    assert (sources.resolve("hf:lab/vit").path.parent / "config.json").exists()


def test_what_a_repository_gave_serves_offline(site, hub, weights, monkeypatch):
    hub(**{"model.safetensors": weights.read_bytes()})
    monkeypatch.setenv("ATTNPROBE_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="cannot be fetched: ATTNPROBE_OFFLINE is set"):
        repositories.fetch("hf:lab/vit")
    assert not site.requests
    monkeypatch.delenv("ATTNPROBE_OFFLINE")
    path, source = repositories.fetch("hf:lab/vit@v2")
    site.requests.clear()
    monkeypatch.setenv("ATTNPROBE_OFFLINE", "1")
    assert repositories.fetch(f"hf:lab/vit@{COMMIT}") == (path, source)
    assert repositories.fetch("hf:lab/vit@v2") == (path, source)
    with pytest.raises(CheckpointError, match="ATTNPROBE_OFFLINE is set"):
        repositories.fetch("hf:lab/vit@v1")
    assert not site.requests


def test_offline_says_where_to_place_what(monkeypatch):
    monkeypatch.setattr(network, "reachable", lambda _: False)
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        load("hf:lab/nowhere-near@v2")
    assert "./nowhere-near/model.safetensors" in caught.value.remedy


def test_shards_come_with_their_index(site, hub):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    hub(
        **{
            "model.safetensors.index.json": json.dumps(index).encode(),
            "model-1.safetensors": b"1",
            "model-2.safetensors": b"2",
            "model-3.safetensors": b"3",
        }
    )
    path, _ = repositories.fetch("hf:lab/vit")
    assert path.name == "model.safetensors.index.json"
    beside = {item.name for item in path.parent.iterdir()}
    assert beside == {path.name, "model-1.safetensors", "model-2.safetensors"}


@pytest.mark.parametrize("name", ["../../evil.bin", "/etc/x.bin", "run.py", "a/b.bin", 3])
def test_shards_outside_the_folder_are_refused(hub, name):
    hub(**{"pytorch_model.bin.index.json": json.dumps({"weight_map": {"a": name}}).encode()})
    with pytest.raises(CheckpointError, match="no plain file name"):
        repositories.fetch("hf:lab/vit")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"weight_map": []}', b"\xff"])
def test_a_damaged_index_is_refused(hub, content):
    hub(**{"pytorch_model.bin.index.json": content})
    with pytest.raises(CheckpointError, match="no index of shards"):
        repositories.fetch("hf:lab/vit")


def test_one_file_and_revision_of_a_repository_can_be_named(hub, weights):
    hub(**{"other/vit.safetensors": weights.read_bytes(), "other/config.json": b"{}"})
    path, source = repositories.fetch("hf:lab/vit@v2:other/vit.safetensors")
    assert source == f"hf:lab/vit@{COMMIT}:other/vit.safetensors"
    assert (path.parent / "config.json").exists()
    with pytest.raises(CheckpointError, match=r"has none of model\.safetensors") as caught:
        repositories.fetch("hf:lab/vit")
    assert "hf:lab/vit:other/vit.safetensors" in caught.value.remedy
    with pytest.raises(CheckpointError, match=r"has no absent\.bin"):
        repositories.fetch("hf:lab/vit:absent.bin")


def test_a_repository_without_weights_is_refused(hub):
    hub(**{"README.md": b""})
    with pytest.raises(CheckpointError, match="has none of") as caught:
        repositories.fetch("hf:lab/vit")
    assert "no weights" in caught.value.remedy


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("RepoNotFound", "no such repository"),
        ("RevisionNotFound", "no revision v9"),
        ("GatedRepo", "accept their terms"),
    ],
)
def test_refusals_of_the_hub_are_told_apart(site, hub, code, cause):
    path = "/api/models/lab/vit/revision/v9"
    site.status[path] = 403 if code == "GatedRepo" else 404
    site.headers[path] = {"X-Error-Code": code}
    with pytest.raises(CheckpointError, match=cause) as caught:
        repositories.fetch("hf:lab/vit@v9")
    assert caught.value.remedy


@pytest.mark.parametrize(
    "source",
    ["hf:vit", "hf:a/b/c", "hf:a/b@", "hf:a/b:../x.bin", "hf:a/b:run.py", "hf:../b", "hf:"],
)
def test_sources_that_name_nothing_are_refused(source):
    with pytest.raises(CheckpointError, match="names no"):
        sources.resolve(source)


def test_a_record_is_completed_from_the_file(weights):
    record = recording.completed("a", {"source": str(weights), "objective": "mim"})
    assert (record.format, record.objective) == ("timm", "mim")
    assert record.input_size == (3, 224, 224)
    assert record.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record.size == weights.stat().st_size


def test_a_record_is_completed_from_timm():
    facts = {"source": "hf:lab/vit", "architecture": "vit_base_patch16_clip_224.openai"}
    record = recording.completed("a", {**facts, "mean": (0.1, 0.2, 0.3)})
    assert record.mean == (0.1, 0.2, 0.3)
    assert record.std == timm.get_pretrained_cfg(facts["architecture"]).std
    assert record.licence == ""


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"source": "timm:vit_tinny"}, "timm has no model 'vit_tinny'"),
        ({"source": "hf:a/b", "architecture": "vitt"}, "timm has no model 'vitt'"),
        ({"source": "hf:a/b", "format": "maee"}, "no format 'maee'"),
        ({"source": "hf:a"}, "names no repository"),
        ({"source": "shipped:x"}, "is not yours"),
        ({"source": "/no/such/file.pth"}, "no checkpoint at"),
        ({"source": "http://a.org/x.pth"}, "https address"),
    ],
)
def test_wrong_records_are_not_written(facts, cause):
    with pytest.raises(CheckpointError, match=cause):
        recording.completed("a", facts)
    assert catalogue.origin("a") == "shipped"
    assert not own.path().exists()
