"""Section files: from JPEGs on disk to tables, from a command to its first word, and the page.

Images a second with 0, 1 and 2 decoding processes beside the same pass over decoded tensors; time
to the first batch, to `--help`, to a demo; time to write the page of a run and to open it.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import WHOLE, Clock, Measured, Settings, build, interleave, pictures
from _photos import photographs
from _rows import Row, gate, row, rows

import attnprobe

WORKERS = (0, 1, 2)
DECODED = "decoded before"
METRICS = ("distance", "entropy", "head_kl", "prefix_mass")
CASES = {  # timm's name, model options, images, batch, rounds
    "full": ("vit_small_patch16_224", {}, 64, 8, 3),
    "quick": ("vit_tiny_patch16_224", {}, 48, 8, 2),
    "toy": ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}, 16, 4, 1),
}
COMMANDS = {
    "import attnprobe": ["-c", "import attnprobe"],
    "attnprobe --help": ["-m", "attnprobe", "--help"],
    "import torch": ["-c", "import torch"],
    "attnprobe demo": ["-m", "attnprobe", "demo", "-o"],
}
STARTS = {"full": 5, "quick": 1, "toy": 1}
PAGE = {"full": 12, "quick": 12, "toy": 2}  # layers of the run whose page is written
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of reading, of starting, and of the page."""
    gate(settings.device)
    settings = replace(settings, clock="wall")  # the work is in other processes too
    yield reading(settings)
    yield starting(settings)
    yield page(settings)


def reading(settings: Settings) -> list[Row]:
    """Return the rates from files, and the time to the first batch."""
    name, options, wished, batch, turns = CASES[settings.size]
    model, size = build(name, settings, **options), settings.batch_of(batch)
    with tempfile.TemporaryDirectory() as place:
        folder = photographs(Path(place, "images"), settings.images_of(wished, size))
        count = len(list(folder.iterdir()))
        ready = pictures(model, count)

        def analyze(images: object, workers: int) -> dict[str, float]:
            clock = Clock(settings)
            options = {"metrics": METRICS, "batch_size": size, "workers": workers}
            settings.analyze(model, images, **options, progress=clock)
            first = clock.marks[0][1] - clock.begin
            return {WHOLE: clock.now() - clock.begin, "to the first batch": first}

        chosen = {DECODED: lambda: analyze(ready, 0)}
        for workers in WORKERS:
            chosen[f"JPEG files, {workers} workers"] = lambda n=workers: analyze(folder, n)
        found = interleave(chosen, settings.rounds or turns)
    title = f"{name} at {model.spec.input_size[1]}, {count} images"
    return rows("files", title, found, settings, images=count, batch=size) + rate_rows(
        title, found, count, settings
    )


def rate_rows(title: str, found: Measured, count: int, settings: Settings) -> list[Row]:
    """Return images a second of whole runs."""
    made = []
    for provider, runs in found.items():
        if isinstance(runs, str):
            continue
        rate = float(np.median([count / seconds[WHOLE] for seconds in runs]))
        about = {"case": title, "provider": provider, "quantity": "rate", "images": count}
        facts = {"value": rate, "unit": "images/s", "rounds": len(runs)}
        made.append(row(settings, section="files", **about, **facts))
    return made


def starting(settings: Settings) -> list[Row]:
    """Return how long new processes take, to their first word and to their end."""
    with tempfile.TemporaryDirectory() as place:
        chosen = {}
        for name, arguments in COMMANDS.items():
            chosen[name] = lambda name=name, given=arguments: started(name, given, Path(place))
        found = interleave(chosen, settings.rounds or STARTS[settings.size])
    return rows("files", "a new process", found, settings)


def started(name: str, arguments: list[str], place: Path) -> dict[str, float]:
    """Time one process.

    Raises:
        RuntimeError: It failed.
    """
    out = place / "demo"
    if arguments[-1] == "-o":
        shutil.rmtree(out, ignore_errors=True)
        arguments = [*arguments, str(out)]
    begin, first = time.perf_counter(), 0.0
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        if process.stdout and process.stdout.read(1):
            first = time.perf_counter() - begin
            process.stdout.read()
    whole = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"{name} failed with {process.returncode}")
    return {WHOLE: whole} | ({"to the first word": first} if first else {})


def page(settings: Settings) -> list[Row]:
    """Return the time to write the page of a run, its size, and the time to open it."""
    depth = PAGE[settings.size]
    model = build("vit_base_patch16_224", settings, img_size=64, depth=depth)
    with tempfile.TemporaryDirectory() as place:
        result = settings.analyze(model, pictures(model, 64), resamples=500, maps=3)
        saved, written = result.save(Path(place, "run")), Path(place, "page.html")

        def write() -> dict[str, float]:
            begin = time.perf_counter()
            loaded = attnprobe.Result.load(saved or Path(place, "run"))
            attnprobe.report([loaded], written, overwrite=True)
            return {"load and write": time.perf_counter() - begin}

        case = f"page of {depth} layers of 12 heads, maps of 3 images"
        turns = settings.rounds or STARTS[settings.size]
        found = interleave({"attnprobe.report": write}, turns)
        made = rows("files", case, found, settings)
        about = {"section": "files", "case": case, "provider": "attnprobe.report"}
        size = {"quantity": "size", "value": written.stat().st_size / 1e6, "unit": "MB"}
        made.append(row(settings, **about, **size))
        made += opening(written, case, turns, settings)
    return made


def opening(written: Path, case: str, turns: int, settings: Settings) -> list[Row]:
    """Return the time to text and to the first figure in headless Chromium, if it is there."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("the page was not opened: playwright is not installed (pip install playwright)")
        return []
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("the page was not opened: no chromium (apt-get install chromium)")
        return []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
        found = interleave({"Chromium": opened(browser, written)}, turns)
        browser.close()
    return rows("files", case, found, settings)


def opened(browser: Any, written: Path) -> Callable[[], dict[str, float]]:
    """Return what opens the page in a fresh context and times it."""

    def once() -> dict[str, float]:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        begin = time.perf_counter()
        page.goto(written.as_uri(), wait_until="commit")
        page.locator("h1").first.wait_for()
        text = time.perf_counter() - begin
        page.locator("[data-figure]").first.scroll_into_view_if_needed()
        page.locator("[data-figure] .main-svg").first.wait_for()
        figure = time.perf_counter() - begin
        page.close()
        return {"to the text": text, "to the first figure": figure}

    return once
