"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from attnprobe.cli import _config, _texts
from attnprobe.cli._conventions import CONVENTIONS
from attnprobe.cli._masking import MASKING

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Plain = click.Path(path_type=Path)


def compose(*decorators: Decorator) -> Decorator:
    """Apply decorators so that their options are listed in the given order."""

    def apply(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print machine output on stdout, messages on stderr."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote.")
resume = click.option(
    "--resume", is_flag=True, help="Keep the runs that are finished in OUT, and go on."
)
go_on = click.option(
    "--resume", is_flag=True, help="Go on with a measurement that was interrupted."
)
trust = click.option(
    "--trust", is_flag=True, help="Let pickled code inside the file RUN. Only for your own files."
)
# what `attnprobe.load` takes beside the source and a label
LOADING = ("heads", "part", "arch", "img_size", "window", "plugins", "trust")
resizing = compose(
    click.option(
        "--img-size",
        metavar="PX[xPX]",
        callback=_texts.size,
        help="Resample positions to this input size (rows x columns, or one number).",
    ),
    click.option(
        "--window",
        metavar="N[xN]",
        callback=_texts.size,
        help="Resample bias tables to this attention window.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False),
        help="Python file with your own FORMAT, READER or METRIC (measured where -m names it); it "
        "runs. Repeat for several.",
    ),
)
loading = compose(
    click.option("--heads", type=click.IntRange(1), help="Heads, where shapes cannot tell."),
    click.option("--name", callback=_texts.label, help="Label for tables and plots."),
    click.option(
        "--part",
        help="Which encoder, of files that hold several: teacher, student, model_ema, "
        "momentum_encoder, ...",
    ),
    click.option("--arch", help="timm model that holds the weights, where the file does not say."),
    resizing,
    trust,
)
_measuring = compose(
    click.option(
        "-i",
        "--images",
        default="bundled",
        show_default=True,
        help="Folder, file, list (.txt), .npz or .tar of JPEGs, WebDataset shards "
        "('set-{000..009}.tar'), hf:NAME, Parquet files, torch/cifar10, or 'bundled'.",
    ),
    click.option(
        "--split",
        default="val",
        show_default=True,
        help="Which part, of image sets that are divided.",
    ),
    click.option(
        "-m",
        "--metrics",
        multiple=True,
        metavar="NAME",
        callback=_texts.listed,
        help="Metric to measure; for several repeat or use commas.  [default: all five]",
    ),
    click.option("--limit", type=click.IntRange(1), help="Use N images, evenly spaced."),
    click.option(
        "--batch-size",
        "--batch",
        default=0,
        type=click.IntRange(0),
        help="Images a forward pass; 0 chooses by device and image size. Halved where memory is "
        "short.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1."),
    click.option(
        "--precision",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
        help="Of the forward pass; auto takes a smaller type where a first batch shows that it "
        "changes no value by more than 1%.",
    ),
    click.option("--compile", is_flag=True, help="torch.compile the model, but for its attention."),
    click.option("--graphs", is_flag=True, help="Replay passes as CUDA graphs; for small models."),
    click.option(
        "--kernel",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "fused", "blocked", "reference"]),
        help="Measuring kernel; fused needs a CUDA device.",
    ),
    click.option(
        "--workers",
        default=-1,
        type=click.IntRange(-1),
        help="Decoding processes; -1 chooses: none on a CPU, up to 8 beside a GPU.",
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Seed of the bootstrap.",
    ),
    compose(*MASKING),
    click.option(
        "--maps",
        default=3,
        show_default=True,
        type=click.IntRange(0, 64),
        help="Images of which attention maps are kept for the page, evenly spaced.",
    ),
    click.option(
        "--map-images",
        "--map-image",
        multiple=True,
        metavar="ID",
        help="Keep the maps of this image too; repeat for several.",
    ),
)


def resamples(draws: int) -> Decorator:
    """Return the option for the number of bootstrap draws, with its default."""
    return click.option(
        "--resamples",
        default=draws,
        show_default=True,
        type=click.IntRange(100, 100_000),
        help="Bootstrap draws.",
    )


measuring = compose(_measuring, resamples(2000))
measuring_to_compare = compose(_measuring, resamples(4000))
conventions = compose(*CONVENTIONS)


def out(shown: str) -> Decorator:
    """Return the option for where to write, with its default as `shown` in the help."""
    text = f"Where to write.  [default: {shown}]"
    return click.option("-o", "--out", metavar="PATH", callback=_texts.output, help=text)


comparing = compose(
    click.option(
        "--name",
        "names",
        multiple=True,
        callback=_texts.labels,
        help="Label of a model; repeat it in the order of the models.",
    ),
    resizing,
    trust,
    click.option(
        "--confidence",
        default=0.95,
        show_default=True,
        type=click.FloatRange(0.5, 0.9999),
        help="Coverage of the intervals.",
    ),
    click.option(
        "--permutations",
        default=10_000,
        show_default=True,
        type=click.IntRange(1000, 1_000_000),
        help="Sign patterns of the permutation test.",
    ),
    click.option(
        "--match-heads", is_flag=True, help="Also pair the heads of aligned layers one to one."
    ),
    click.option(
        "--threshold",
        "thresholds",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_texts.numbers,
        help="Change a limit of the claims (`attnprobe list claims`); repeat for several.",
    ),
)
config = click.option(
    "--config",
    type=Plain,
    callback=_config.read,
    is_eager=True,
    expose_value=False,
    help="TOML file with defaults for these options, e.g. a run's config.toml.",
)
