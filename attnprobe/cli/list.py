"""attnprobe list: what attnprobe knows."""

import click

from attnprobe.cli import _options

KINDS = (
    *("checkpoints", "claims", "exports", "formats", "metrics"),
    *("objectives", "plots", "recipes"),
)


@click.command(name="list")
@click.argument("kind", type=click.Choice(KINDS))
@_options.as_json
def command(kind: str, *, as_json: bool) -> int:
    """List checkpoints, claims, formats, metrics, objectives, plots, recipes or exports.

    \b
    attnprobe list checkpoints
    attnprobe list metrics --json
    """
    from attnprobe.cli import _listing
    from attnprobe.cli._console import put_json

    rows = _listing.rows(kind)
    if as_json:
        put_json(rows)
    else:
        _listing.show(rows)
    return 0
