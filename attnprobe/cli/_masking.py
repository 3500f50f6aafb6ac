"""Options that hide a part of every image, as masked pre-training does."""

import click

MASKING = (
    click.option(
        "--mask-ratio",
        default=0.0,
        metavar="SHARE",
        type=click.FloatRange(0, 1, max_open=True),
        help="Hide this share of every image, as masked pre-training does.",
    ),
    click.option(
        "--mask-seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Seed of the masks; each image has its own.",
    ),
    click.option(
        "--mask-how",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "drop", "replace"]),
        help="Drop patches (MAE), replace them by the mask token (SimMIM, BEiT), or as the "
        "checkpoint was pre-trained.",
    ),
    click.option(
        "--mask-patch",
        default=0,
        metavar="PX",
        type=click.IntRange(0),
        help="Side of the squares that are hidden as a whole; 0 for that of the pre-training.",
    ),
)
