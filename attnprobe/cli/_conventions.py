"""Options for the conventions of the metrics."""

import click

CONVENTIONS = (
    click.option(
        "--distance-unit",
        default="px",
        show_default=True,
        type=click.Choice(["px", "tokens", "grid", "unit"]),
        help="px: input pixels; tokens: token sides; grid: tokens times the grid side; "
        "unit: tokens / (grid side - 1), the unit square.",
    ),
    click.option(
        "--entropy-unit",
        default="nats",
        show_default=True,
        type=click.Choice(["nats", "bits"]),
        help="Logarithm of the entropies: natural or base 2. Divergences are in nats.",
    ),
    click.option(
        "--prefix",
        default="renormalised",
        show_default=True,
        type=click.Choice(["renormalised", "excluded", "included"]),
        help="Attention on prefix tokens (CLS, registers): dropped and rows rescaled, dropped, "
        "or kept.",
    ),
    click.option(
        "--average",
        default="statistic",
        show_default=True,
        type=click.Choice(["statistic", "attention"]),
        help="Average statistics over images, or attention first.",
    ),
    click.option(
        "--divergence",
        default="kl",
        show_default=True,
        type=click.Choice(["kl", "symmetric", "js"]),
        help="Between heads: KL(a || b), the mean of both directions, or Jensen-Shannon.",
    ),
    click.option(
        "--cka-tokens",
        default="mean",
        show_default=True,
        type=click.Choice(["mean", "cls", "flat"]),
        help="What CKA compares: the mean of the patches, the CLS token, or all tokens.",
    ),
    click.option(
        "--cka-estimator",
        default="unbiased",
        show_default=True,
        type=click.Choice(["unbiased", "biased"]),
        help="HSIC behind CKA; the biased one grows when images are few.",
    ),
    click.option(
        "--cka-batch",
        default=64,
        show_default=True,
        type=click.IntRange(10),
        help="Images in one CKA mini-batch.",
    ),
    click.option(
        "--query-step",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Measure one in N patch queries, for long sequences.",
    ),
)
