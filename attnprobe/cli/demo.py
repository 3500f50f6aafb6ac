"""attnprobe demo: the main job on what ships in the box."""

from pathlib import Path

import click

from attnprobe.cli import _options

CHECKPOINT = "vit_tiny_cifar10_supervised"


@click.command(name="demo")
@click.option(
    "-o",
    "--out",
    type=_options.Plain,
    default=Path("attnprobe-demo"),
    show_default=True,
    help="Run folder.",
)
@_options.overwrite
@_options.as_json
def command(out: Path, *, overwrite: bool, as_json: bool) -> int:
    """Measure what ships in the box.

    The bundled checkpoint on the bundled images; no network, under a minute.
    """
    from attnprobe.analysis import AnalysisConfig
    from attnprobe.cli import _run

    return _run.run(
        CHECKPOINT,
        "bundled",
        AnalysisConfig(),
        out=out,
        overwrite=overwrite,
        as_json=as_json,
        loading={},
    )
