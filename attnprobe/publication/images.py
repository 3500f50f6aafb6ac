"""Figures as pdf, svg and png bytes, drawn by the Chrome of this machine without a network."""

import asyncio
import re
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from PIL import Image

from attnprobe.errors import AttnprobeError

FORMATS = ("pdf", "svg", "png")
INCH, DOTS = 96, 300  # px of a figure, and dots of a png, to the inch
SECONDS = 120.0  # for one figure
INSTALL = "pip install 'attnprobe[figures]'"
# the page may load what lies on this machine and nothing else; without a margin of zero Chrome
# prints its own
HEADER = """
<!DOCTYPE html>
<html lang="en">
    <head>
        <meta charset="utf-8">
        <meta http-equiv="Content-Security-Policy"
            content="default-src file: data: blob: 'unsafe-inline' 'unsafe-eval'">
        <title>attnprobe</title>
        <style>@page { margin: 0 } img { display: block }</style>
        <style id="head-style"></style>
"""

Drawn = dict[tuple[str, str], bytes]


def draw(figures: dict[str, dict[str, Any]], formats: tuple[str, ...]) -> Drawn:
    """Return the bytes of every figure in every format, by name and format.

    Args:
        figures: Traces and layout by name; the layout has a width and a height.
        formats: Some of `FORMATS`.

    Raises:
        AttnprobeError: kaleido or Chrome is missing, with the way to get it, or fails.
    """
    kaleido = _kaleido()
    from choreographer.errors import ChromeNotFoundError, DevtoolsProtocolError
    from kaleido.errors import KaleidoError

    try:
        return _run(_draw(kaleido, figures, formats))
    except ChromeNotFoundError as error:
        raise AttnprobeError(
            "figures are drawn by Chrome or Chromium, and none was found",
            "install chromium with the system's package manager, or run `plotly_get_chrome`; "
            "BROWSER_PATH names one in an unusual place",
        ) from error
    except (KaleidoError, DevtoolsProtocolError, RuntimeError, OSError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise AttnprobeError(
            f"Chrome drew no figure: {words}",
            "try again; if it fails again, `choreo_diagnose` says what Chrome lacks",
        ) from error


def _kaleido() -> Any:
    try:
        import kaleido
    except ImportError as error:
        raise AttnprobeError("figures need kaleido, which is not installed", INSTALL) from error
    if not hasattr(kaleido, "PageGenerator"):
        raise AttnprobeError("figures need kaleido 1.0 or newer", INSTALL)
    return kaleido


def _run(task: Coroutine[Any, Any, Drawn]) -> Drawn:
    """Run to the end, also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(task)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, task).result()


async def _draw(
    kaleido: Any, figures: dict[str, dict[str, Any]], formats: tuple[str, ...]
) -> Drawn:
    """Draw everything in one browser."""
    page = kaleido.PageGenerator(mathjax=False)
    page.header = HEADER
    drawn: Drawn = {}
    async with kaleido.Kaleido(page_generator=page, timeout=SECONDS) as chrome:
        for name, figure in figures.items():
            size = {key: figure["layout"][key] for key in ("width", "height")}
            for kind in formats:
                options = {**size, "format": kind, "scale": DOTS / INCH if kind == "png" else 1}
                drawn[name, kind] = CLEAN[kind](await chrome.calc_fig(figure, opts=options))
    return drawn


def _pdf(data: bytes) -> bytes:
    """Blank what differs between two runs; every offset in the file stays true."""
    data = re.sub(rb"/(Creation|Mod)Date \(D:[^)]*\)", lambda found: b" " * len(found[0]), data)
    creator = rb"/Creator \((?:\\.|[^\\)])*\)"
    return re.sub(creator, lambda old: b"/Creator (attnprobe)".ljust(len(old[0])), data, count=1)


def _svg(data: bytes) -> bytes:
    """Give the size in inches, since programs differ in what they take a pixel for."""
    return re.sub(
        rb'(width|height)="([\d.]+)"',
        lambda found: b'%s="%gin"' % (found[1], float(found[2]) / INCH),
        data,
        count=2,
    )


def _png(data: bytes) -> bytes:
    """Note the dots to the inch in the file."""
    into = BytesIO()
    Image.open(BytesIO(data)).convert("RGB").save(into, "png", dpi=(DOTS, DOTS), optimize=True)
    return into.getvalue()


CLEAN = {"pdf": _pdf, "svg": _svg, "png": _png}
