"""attnprobe list: what attnprobe knows."""

import click

from attnprobe.cli import _options

KINDS = (
    *("checkpoints", "claims", "exports", "formats", "metrics"),
    *("objectives", "plots", "recipes"),
)


_ONLY = "checkpoints only: "


@click.command(name="list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--objective", metavar="TEXT", help=f"{_ONLY}trained so, e.g. mim.")
@click.option("--arch", metavar="TEXT", help=f"{_ONLY}architecture, e.g. vit_base or 'swin*'.")
@click.option("--name", metavar="TEXT", help=f"{_ONLY}part of the name, or a pattern with *.")
@click.option("--licence", metavar="TEXT", help=f"{_ONLY}licence, e.g. mit.")
@_options.as_json
def command(kind: str, *, as_json: bool, **filters: str | None) -> int:
    """List checkpoints, claims, formats, metrics, objectives, plots, recipes or exports.

    \b
    attnprobe list checkpoints --objective mim --arch vit_base
    attnprobe list metrics --json
    """
    from attnprobe.cli import _listing
    from attnprobe.cli._console import put_json, say

    given = {name: text for name, text in filters.items() if text is not None}
    if given and kind != "checkpoints":
        raise click.UsageError(f"--{next(iter(given))} filters checkpoints, not {kind}")
    rows = _listing.rows(kind, given)
    if as_json:
        put_json(rows)
    elif rows:
        _listing.show(rows, _listing.COLUMNS.get(kind))
    else:
        say(_listing.nothing(given))
    return 0
