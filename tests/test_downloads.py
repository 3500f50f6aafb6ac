"""Downloads: resumed, checked, refused and put in place, against a server of this machine."""

import hashlib
import json
import threading
from collections import namedtuple

import pytest
from served import serving

from attnprobe.checkpoints.origins import announcing, cache, downloads, network
from attnprobe.errors import CheckpointError, OutputError

DATA = bytes(range(256)) * 4000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def server():
    with serving() as site:
        yield site


@pytest.fixture
def site(server, monkeypatch):
    server.__dict__.update(type(server)().__dict__ | {"address": server.address})
    server.files["/vit.pth"] = DATA
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    monkeypatch.setattr(downloads, "CHUNK", 2**16)
    for name in ("ATTNPROBE_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return server


@pytest.fixture
def wanted(site, tmp_path):
    return downloads.Wanted("vit", f"{site.address}/vit.pth", tmp_path / "vit" / "vit.pth", SHA)


def left(wanted):
    return sorted(path.name for path in wanted.target.parent.iterdir() if path.suffix != ".lock")


def changed(wanted, **fields):
    return downloads.Wanted(**{**wanted.__dict__, **fields})


def test_a_download_is_whole_recorded_and_made_once(site, wanted):
    seen = []
    found = downloads.download(wanted, lambda done, total: seen.append((done, total)))
    assert wanted.target.read_bytes() == DATA
    assert (found.address, found.size, found.sha256) == (wanted.address, len(DATA), SHA)
    beside = json.loads((wanted.target.parent / "vit.pth.json").read_text())
    assert set(beside) == {"address", "size", "sha256", "fetched"}
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert left(wanted) == ["vit.pth", "vit.pth.json"]
    assert downloads.download(wanted) == found
    assert len(site.asked()) == 1


def test_broken_connections_are_resumed_at_the_byte(site, wanted):
    site.breaks = [300_000, 0, 250_000]
    downloads.download(wanted)
    assert wanted.target.read_bytes() == DATA
    assert [request[2] for request in site.asked()] == [
        None,
        *["bytes=300000-"] * 2,
        "bytes=550000-",
    ]


def test_what_an_interrupted_run_left_goes_on(site, wanted):
    def stop(done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.download(wanted, stop)
    size = (wanted.target.parent / "vit.pth.part").stat().st_size
    assert 100_000 < size < len(DATA)
    assert not wanted.target.exists()
    downloads.download(wanted)
    assert site.asked()[-1][2] == f"bytes={size}-"
    assert wanted.target.read_bytes() == DATA


def test_a_run_stopped_after_the_last_byte_needs_no_other_request(site, wanted):
    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.download(wanted, stop)
    downloads.download(wanted)
    assert len(site.asked()) == 1


def test_a_file_that_changed_meanwhile_begins_again(site, wanted):
    site.breaks = [200_000] + [0] * downloads.ATTEMPTS
    with pytest.raises(CheckpointError, match="broke off at 200000 bytes") as caught:
        downloads.download(wanted)
    assert "goes on from there" in caught.value.remedy
    site.files["/vit.pth"] = other = DATA[::-1]
    site.breaks = []
    digest = hashlib.sha256(other).hexdigest()
    assert downloads.download(changed(wanted, sha256=digest)).sha256 == digest
    assert wanted.target.read_bytes() == other


@pytest.mark.parametrize("longer", [b"", b"more"])
def test_a_part_that_is_not_of_the_file_begins_again(site, wanted, longer):
    site.breaks = [0] * downloads.ATTEMPTS
    with pytest.raises(CheckpointError, match="broke off"):
        downloads.download(changed(wanted, sha256=""))
    part = wanted.target.parent / "vit.pth.part"
    part.write_bytes(bytes(len(DATA)) + longer)  # longer than the server's file: 416
    if not longer:
        part.with_name("vit.pth.part.json").unlink()
    site.breaks = []
    downloads.download(wanted)
    assert wanted.target.read_bytes() == DATA


def test_a_server_without_ranges_is_asked_for_all(site, wanted):
    site.ranges = False
    site.breaks = [400_000]
    downloads.download(wanted)
    assert wanted.target.read_bytes() == DATA


def test_a_wrong_hash_is_refused_and_the_file_removed(wanted):
    with pytest.raises(CheckpointError, match=SHA) as caught:
        downloads.download(changed(wanted, sha256="0" * 64))
    assert "0" * 64 in caught.value.cause
    assert left(wanted) == []


def test_a_wrong_size_is_refused_before_the_download(wanted):
    with pytest.raises(CheckpointError, match=f"has {len(DATA)} bytes, and vit should have 7"):
        downloads.download(changed(wanted, size=7))
    assert left(wanted) == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>Virus scan warning", "text/html; charset=utf-8"),
        (b"\n <!DOCTYPE html><html>", "application/octet-stream"),
    ],
)
def test_a_web_page_is_no_file(site, wanted, content, kind):
    site.files["/vit.pth"] = content
    site.headers["/vit.pth"] = {"Content-Type": kind}
    with pytest.raises(CheckpointError, match="a web page, not a file"):
        downloads.download(changed(wanted, sha256=""))
    assert left(wanted) == []


def test_an_empty_file_is_refused(site, wanted):
    site.files["/vit.pth"] = b""
    with pytest.raises(CheckpointError, match="is empty"):
        downloads.download(wanted)
    assert left(wanted) == []


def test_what_is_not_there_is_said_at_once(site, wanted):
    with pytest.raises(CheckpointError, match="404 Not Found"):
        downloads.download(changed(wanted, address=f"{site.address}/none.pth"))
    assert len(site.asked()) == 1


def test_a_busy_server_is_asked_again(site, wanted):
    site.status["/vit.pth"] = 503
    with pytest.raises(CheckpointError, match="broke off at 0 bytes: the server answered 503"):
        downloads.download(wanted)
    assert len(site.asked()) == downloads.ATTEMPTS


def test_a_redirect_leads_on_to_safe_addresses_only(site, wanted):
    site.redirects = {"/a": f"{site.address}/vit.pth", "/b": "http://example.org/vit.pth"}
    downloads.download(changed(wanted, address=f"{site.address}/a"))
    assert wanted.target.read_bytes() == DATA
    with pytest.raises(CheckpointError, match=r"http://example.org/vit.pth, .* is not https"):
        downloads.download(changed(wanted, address=f"{site.address}/b"))


@pytest.mark.parametrize("address", ["http://example.org/a.pth", "ftp://a.org/a", "file:///a"])
def test_only_https_is_fetched(wanted, address):
    with pytest.raises(CheckpointError, match="is not https"):
        downloads.download(changed(wanted, address=address))


def test_a_full_disk_is_noticed_before(wanted, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"0\.0 GB free"):
        downloads.download(wanted)
    assert left(wanted) == []


def test_a_folder_that_cannot_be_made_is_said(wanted, tmp_path):
    (tmp_path / "vit").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        downloads.download(wanted)


@pytest.mark.parametrize("switch", ["ATTNPROBE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_to_place_where(site, wanted, monkeypatch, switch):
    monkeypatch.setenv(switch, "1")
    with pytest.raises(CheckpointError, match=f"{switch} is set") as caught:
        downloads.download(wanted)
    assert wanted.address in caught.value.remedy
    assert str(wanted.target) in caught.value.remedy
    assert not site.requests
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(DATA)  # as it says
    assert downloads.download(wanted).sha256 == SHA


def test_a_wrong_file_put_there_by_hand_is_refused_and_stays(wanted):
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=f"is not vit: .*expected {SHA}"):
        downloads.download(wanted)
    assert wanted.target.read_bytes() == b"other"


def test_another_address_of_the_record_is_fetched_anew(site, wanted):
    downloads.download(wanted)
    site.files["/new.pth"] = b"new weights"
    renewed = changed(wanted, address=f"{site.address}/new.pth", sha256="")
    downloads.download(renewed)
    assert wanted.target.read_bytes() == b"new weights"


def test_two_at_once_make_one_download(site, wanted):
    site.breaks = [500_000]
    found = []
    both = [
        threading.Thread(target=lambda: found.append(downloads.download(wanted))) for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [item.sha256 for item in found] == [SHA, SHA]
    assert wanted.target.read_bytes() == DATA
    assert len(site.asked()) == 2  # the broken one, and its resumption


def test_a_host_without_an_answer_costs_seconds(monkeypatch):
    monkeypatch.setattr(network, "SECONDS", -0.9)
    monkeypatch.setattr(network, "_answers", lambda *_: threading.Event().wait(3))
    monkeypatch.setattr(network.urllib.request, "getproxies", dict)
    for name in ("ATTNPROBE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert not network.reachable("https://a.example/x")


def test_a_download_is_announced_with_its_size(capsys, tmp_path):
    with announcing.announced("vit", tmp_path / "vit.pth") as update:
        update(2_000_000, 5_000_000)
        update(5_000_000, 5_000_000)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        f"downloading vit: 5.0 MB, on from 2.0 MB, to {tmp_path / 'vit.pth'}"
    ]


def test_the_cache_is_where_the_platform_or_the_user_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert cache.folder() == tmp_path / "checkpoints"
    monkeypatch.delenv(cache.VARIABLE)
    assert "attnprobe" in cache.folder().parts
