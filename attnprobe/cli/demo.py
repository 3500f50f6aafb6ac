"""attnprobe demo: the main job on what ships in the box."""

from pathlib import Path

import click

from attnprobe.cli import _options

CHECKPOINT = "vit_tiny_cifar10_supervised"
FOLDER = "attnprobe-demo"


@click.command(name="demo")
@_options.out(FOLDER)
@_options.overwrite
@_options.as_json
def command(out: Path | None, *, overwrite: bool, as_json: bool) -> int:
    """Measure what ships in the box.

    The bundled checkpoint on the bundled images; no network, under a minute.
    """
    from attnprobe.analysis import AnalysisConfig
    from attnprobe.cli import _run

    return _run.run(
        CHECKPOINT,
        "bundled",
        AnalysisConfig(maps=3),
        out=out or Path(FOLDER),
        overwrite=overwrite,
        as_json=as_json,
        loading={},
    )
