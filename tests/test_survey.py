"""A measurement that is interrupted, taken up and shared equals one that was left in peace."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnprobe
from attnprobe import Result
from attnprobe.analysis import analyze_together
from attnprobe.errors import AttnprobeError, ImagesError, OutputError
from attnprobe.processes import World, joined, launched
from attnprobe.settings import AnalysisConfig
from attnprobe.unfinished import Unfinished
from tests.test_analysis import small_model

SOURCE = "timm:test_vit?pretrained=0"
CONFIG = AnalysisConfig(batch_size=5, maps=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index in range(74):
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((190, 180)).save(folder / f"{index:03}.jpg")
    for index in (0, 17, 64, 73):
        (folder / f"{index:03}.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def model():
    return attnprobe.load(SOURCE)


@pytest.fixture(scope="module")
def undisturbed(model, photos):
    return attnprobe.analyze(model, photos, config=CONFIG)


def same(a, b, tolerance=1e-6):
    """Whether two results have the same rows in the same order, and the same numbers."""
    assert set(a.tables) == set(b.tables)
    for name, table in a.tables.items():
        other = b.tables[name]
        numbers = [column for column in table if table[column].dtype.kind == "f"]
        assert table.drop(columns=numbers).equals(other.drop(columns=numbers)), name
        scale = max(1.0, float(table["value"].abs().max()))  # spreads are differences of values
        for column in numbers:
            np.testing.assert_allclose(
                other[column],
                table[column],
                rtol=tolerance,
                atol=tolerance * scale,
                err_msg=f"{name} {column}",
            )
    assert a.images.equals(b.images)
    assert a.provenance.images_sha256 == b.provenance.images_sha256
    assert a.provenance.skipped == b.provenance.skipped
    for name, parts in a.arrays.items():
        for part, array in parts.items():
            np.testing.assert_allclose(b.arrays[name][part], array, rtol=1e-3, atol=1e-4)


def test_mini_batches_hold_the_images_of_their_candidates(undisturbed):
    assert undisturbed.arrays["grams"]["sizes"].tolist() == [62, 8]
    assert len(undisturbed.images) == 70
    assert [line[:7] for line in undisturbed.provenance.skipped] == [
        "000.jpg",
        "017.jpg",
        "064.jpg",
        "073.jpg",
    ]
    # the first of the two images for maps is broken
    assert undisturbed.arrays["maps"]["index"].tolist() == [35]


@pytest.mark.parametrize("batches", [1, 3, 13])
def test_an_interrupted_run_loses_one_batch(model, photos, undisturbed, tmp_path, batches):
    seen = []

    def interrupt(done, total):
        seen.append(done)
        if len(seen) == batches:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        analyze_together(model, photos, World(), config=CONFIG, progress=interrupt, state=state)
    again = []
    result = analyze_together(
        model,
        photos,
        World(),
        config=CONFIG,
        state=state,
        resume=True,
        progress=lambda *pair: again.append(pair),
    )
    assert again[0][0] > seen[-1]
    assert all(total == 74 for _, total in again)
    same(undisturbed, result)


def test_a_finished_state_measures_nothing_more(model, photos, undisturbed, tmp_path):
    state = tmp_path / "state"
    analyze_together(model, photos, World(), config=CONFIG, state=state)
    result = analyze_together(
        model, photos, World(), config=CONFIG, state=state, resume=True, progress=pytest.fail
    )
    same(undisturbed, result)


@pytest.mark.parametrize("average", ["statistic", "attention"])
def test_images_averaged_first_can_be_interrupted_too(model, photos, tmp_path, average):
    config = AnalysisConfig(metrics=("entropy",), batch_size=5, limit=20)
    config = attnprobe.settings.configure(config, None, {"average": average})
    whole = attnprobe.analyze(model, photos, config=config)

    def interrupt(done, total):
        raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        analyze_together(model, photos, World(), config=config, progress=interrupt, state=state)
    same(whole, analyze_together(model, photos, World(), config=config, state=state, resume=True))


@pytest.mark.parametrize(
    ("changes", "resume", "words"),
    [
        ({}, False, "an interrupted measurement is kept"),
        ({"limit": 10}, True, r"of other settings \(changed: limit\)"),
        ({"entropy_unit": "bits"}, True, r"of other settings \(changed: entropy unit\)"),
        ({"precision": "bf16"}, True, r"of other settings \(changed: precision\)"),
    ],
)
def test_a_state_of_something_else_is_refused(model, photos, tmp_path, changes, resume, words):
    state = tmp_path / "state"
    analyze_together(model, photos, World(), config=CONFIG, state=state)
    config = attnprobe.settings.configure(CONFIG, None, dict(changes))
    with pytest.raises(OutputError, match=words):
        analyze_together(model, photos, World(), config=config, state=state, resume=resume)


def test_a_state_of_other_weights_or_images_is_refused(model, photos, tmp_path):
    state = tmp_path / "state"
    analyze_together(model, photos, World(), config=CONFIG, state=state)
    with pytest.raises(OutputError, match="of other weights"):
        analyze_together(small_model(), photos, World(), config=CONFIG, state=state, resume=True)
    other = shutil.copytree(photos, tmp_path / "other")
    (other / "003.jpg").rename(other / "003b.jpg")
    with pytest.raises(OutputError, match="of other images"):
        analyze_together(model, other, World(), config=CONFIG, state=state, resume=True)


@pytest.mark.parametrize("change", ["another picture", "broken", "mended"])
def test_images_that_changed_meanwhile_are_noticed(model, photos, tmp_path, change):
    folder, state = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "state"
    analyze_together(model, folder, World(), config=CONFIG, state=state)
    name = "017.jpg" if change == "mended" else "001.jpg"
    if change == "broken":
        (folder / name).write_bytes(b"no image")
    else:
        shutil.copy(photos / "033.jpg", folder / name)
    with pytest.raises(OutputError, match=rf"{name} has changed since the interruption"):
        analyze_together(model, folder, World(), config=CONFIG, state=state, resume=True)


def test_the_same_weights_with_other_heads_are_refused(tmp_path, photos):
    path, state = tmp_path / "vit.pth", tmp_path / "state"
    torch.save({"model": small_model().state_dict()}, path)
    first, second = (attnprobe.load(path, heads=heads) for heads in (2, 4))
    analyze_together(first, photos, World(), config=CONFIG, state=state)
    with pytest.raises(OutputError, match="of other model"):
        analyze_together(second, photos, World(), config=CONFIG, state=state, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "fp4"},
        {"precision": 7},
        {"precision": "tf32"},
        {"deviation": [1]},
        {"config": None},
        {"images": 3},
    ],
)
def test_a_state_that_was_tampered_with_is_refused(model, photos, tmp_path, change):
    state = tmp_path / "state"
    config = AnalysisConfig(metrics=("entropy",), limit=8)
    analyze_together(model, photos, World(), config=config, state=state)
    stored = json.loads((state / "state.json").read_text())
    (state / "state.json").write_text(json.dumps({**stored, **change}))
    with pytest.raises(AttnprobeError):
        analyze_together(model, photos, World(), config=config, state=state, resume=True)


def test_nothing_left_to_read_needs_no_workers(model, photos, undisturbed, tmp_path):
    state, config = tmp_path / "state", replace(CONFIG, workers=1)
    analyze_together(model, photos, World(), config=config, state=state)
    same(
        undisturbed,
        analyze_together(model, photos, World(), config=config, state=state, resume=True),
    )


def test_two_interruptions_leave_no_trace_either(model, photos, undisturbed, tmp_path):
    state = tmp_path / "state"
    for batches in (3, 4, 2):
        seen = []

        def interrupt(done, total, seen=seen, batches=batches):
            seen.append(done)
            if len(seen) == batches:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            analyze_together(
                model,
                photos,
                World(),
                config=CONFIG,
                progress=interrupt,
                state=state,
                resume=bool(state.exists()),
            )
    # the files of a run are taken up by name, and names are random: here the newest comes first
    files = sorted(state.glob("*.journal"), key=lambda path: -path.stat().st_mtime_ns)
    assert len(files) == 3
    for index, path in enumerate(files):
        path.rename(state / f"{path.name.split('-')[0]}-{index}-again.journal")
    same(
        undisturbed,
        analyze_together(model, photos, World(), config=CONFIG, state=state, resume=True),
    )


def test_features_that_are_no_numbers_are_said(photos):
    model = small_model()

    def overflow(module, args, output):
        output = output.clone()
        output[2, 5] = float("inf")
        return output

    model.blocks[5].mlp.register_forward_hook(overflow)
    with pytest.raises(AttnprobeError, match="cka of layer 5 is not a finite number"):
        attnprobe.analyze(model, photos, ["cka"], limit=20)


def test_an_asked_precision_holds_whatever_can_be_read_first(tmp_path, model, photos):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "000.jpg").write_bytes(b"no image")
    config = AnalysisConfig(metrics=("entropy",), precision="bf16")
    for index in range(1, 9):
        shutil.copy(photos / f"{index:03}.jpg", folder)
    assert attnprobe.analyze(model, folder, config=config).provenance.precision == "bfloat16"


def test_an_image_named_for_maps_that_cannot_be_read_is_said(model, photos):
    with pytest.warns(UserWarning, match=r"017\.jpg cannot be read"):
        result = attnprobe.analyze(model, photos, ["entropy"], map_images=("017.jpg", "018.jpg"))
    assert len(result.arrays["maps"]["index"]) == 1


def test_nothing_readable_is_told_with_the_first_reason(model, tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(b"no image")
    with pytest.raises(ImagesError, match=r"none of the 3 images .* first is 0\.jpg"):
        attnprobe.analyze(model, tmp_path, ["entropy"])


def test_shares_are_whole_and_even():
    for count in (1, 2, 3, 7):
        for items in (0, 1, 5, 23):
            shares = [World(rank, count).share(range(items)) for rank in range(count)]
            assert [x for share in shares for x in share] == list(range(items))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_launcher_this_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == 1
    assert joined() == World()
    monkeypatch.setenv("WORLD_SIZE", "4")  # as some clusters set it for every job
    assert launched() == 1


# several processes ---------------------------------------------------------------------------


def torchrun(count, *arguments):
    options = ["--nproc-per-node", str(count), "--master-port", str(_free_port())]
    program = ["-m", "torch.distributed.run", *options, "-m", "attnprobe"]
    return [sys.executable, *program, *map(str, arguments)]


def _free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for task in tasks for child in task.read_text().split())


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(command):
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), timeout=300
    )
    assert done.returncode in (0, 3), done.stderr  # 3: images that cannot be read
    return done


@pytest.mark.slow
def test_four_processes_equal_one(photos, undisturbed, tmp_path):
    out = tmp_path / "run"
    options = ["-i", photos, "-o", out, "--batch", 5, "--maps", 2]
    done = run(torchrun(4, "analyze", SOURCE, *options))
    assert done.stdout.count("entropy") <= 1  # one process talks
    result = Result.load(out)
    assert result.provenance.processes == 4
    same(undisturbed, result)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_one_alone_finishes_it(photos, undisturbed, tmp_path):
    out = tmp_path / "run"
    options = ["-i", photos, "-o", out, "--batch", 1, "--maps", 2]
    started = subprocess.Popen(
        torchrun(2, "analyze", SOURCE, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    state = tmp_path / ".run.unfinished"
    while len(list(state.glob("*.journal"))) < 2 and started.poll() is None:
        time.sleep(0.01)
    for child in _children(started.pid)[-1:]:
        os.kill(child, signal.SIGKILL)
    _, told = started.communicate(timeout=120)
    assert started.returncode != 0, told
    assert "--resume" in told
    assert not out.exists()
    held = Unfinished(state)
    kept = sum(len(part.seen) for part in held.parts(held.files(), 74))
    assert 0 < kept < 74
    run([sys.executable, "-m", "attnprobe", "analyze", SOURCE, *map(str, options), "--resume"])
    same(undisturbed, Result.load(out))
    assert not state.exists()


@pytest.mark.slow
def test_compare_runs_unchanged_in_several_processes(photos, tmp_path):
    other = tmp_path / "other.pth"
    torch.save(small_model().state_dict(), other)
    out = tmp_path / "both"
    options = ["-i", photos, "--limit", 20, "-m", "entropy,distance", "--maps", 0, "-o", out]
    done = run(torchrun(2, "compare", SOURCE, SOURCE, *options, "--name", "a", "--name", "b"))
    assert done.stderr.count("1 of 2: a measured") == 1
    alone = attnprobe.analyze(SOURCE, photos, ["entropy", "distance"], limit=20, resamples=4000)
    for folder in sorted((out / "runs").iterdir()):
        kept = Result.load(folder)
        assert kept.provenance.processes == 2
        same(alone, kept)
    assert not (tmp_path / ".both.unfinished").exists()


def test_processes_with_other_models_are_told(monkeypatch, model, photos):
    world = World(0, 2)

    def apart(self, item):
        return [item, {**item, "weights": "x"}] if isinstance(item, dict) else [item]

    monkeypatch.setattr(World, "everywhere", apart)
    with pytest.raises(AttnprobeError, match="process 1 measures other weights"):
        analyze_together(model, photos, world, config=CONFIG)
