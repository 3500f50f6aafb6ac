"""attnprobe checkpoints: keep a catalogue of your own, and fetch what it names."""

from typing import Any

import click

from attnprobe.cli import _options

_HELP = """Keep a catalogue of checkpoints, and fetch what it names.

\b
attnprobe checkpoints show mae_vit_base
attnprobe checkpoints fetch mocov3_vit_base
attnprobe checkpoints add mine --source runs/mae/checkpoint.safetensors --objective mim

Shipped records and your own are listed by `attnprobe list checkpoints`; each command takes
their names in place of a path.
"""


command = click.Group(name="checkpoints", help=_HELP)


_facts = _options.compose(
    click.option(
        "--source",
        required=True,
        metavar="SOURCE",
        help="Path, timm:NAME.tag, hf:OWNER/REPO[@REV][:FILE], https address, or file:NAME for "
        "one to download by hand.",
    ),
    click.option("--file", metavar="NAME", help="Name of the file, where the source hides it."),
    click.option("--arch", "architecture", metavar="NAME", help="timm model name."),
    click.option("--format", metavar="NAME", help="`attnprobe list formats`."),
    click.option("--objective", metavar="NAME", help="mim, contrastive, supervised, ..."),
    click.option("--data", metavar="TEXT", help="Training images."),
    click.option("--licence", metavar="TEXT", help="Licence of the weights."),
    click.option("--citation", metavar="TEXT", help="Short citation."),
    click.option("--homepage", metavar="TEXT", help="Where its authors publish it."),
    click.option("--sha256", metavar="HEX", help="Hash that the file has to have."),
    click.option("--size", type=click.IntRange(1), help="Bytes that the file has to have."),
    click.option("--input-size", nargs=3, type=int, help="Channels, rows, columns."),
    click.option("--mean", nargs=3, type=float, help="Mean of the normalisation."),
    click.option("--std", nargs=3, type=float, help="Standard deviation of the normalisation."),
)


@command.command("add")
@click.argument("name")
@_facts
@click.option("--to", metavar="PATH", type=_options.Plain, help="Catalogue file to write to.")
@_options.overwrite
@_options.trust
def _add(name: str, *, to: Any, overwrite: bool, trust: bool, **facts: Any) -> int:
    """Write a record NAME into your own catalogue.

    What is not given is read from a local file, or taken from timm. Comments and order of the
    catalogue stay.

    \b
    attnprobe checkpoints add mine --source ~/weights/mine.pth --objective mim
    attnprobe checkpoints add lab --source https://example.org/vit.pth --arch vit_base_patch16_224
    """
    from attnprobe.cli import _catalogue

    return _catalogue.add(name, facts, to=to, overwrite=overwrite, trust=trust)


@command.command("fetch")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_options.as_json
def _fetch(names: tuple[str, ...], *, as_json: bool) -> int:
    """Fetch the weights of NAME into the cache; print path and sha256.

    A download that was interrupted goes on where it broke off.

    \b
    attnprobe checkpoints fetch mocov3_vit_base
    """
    from attnprobe.cli import _catalogue

    return _catalogue.fetch(names, as_json=as_json)


@command.command("show")
@click.argument("name")
@_options.as_json
def _show(name: str, *, as_json: bool) -> int:
    """Print all fields of the record NAME, and where its file lies."""
    from attnprobe.cli import _catalogue

    return _catalogue.show(name, as_json=as_json)


@command.command("remove")
@click.argument("name")
@click.option("--from", "target", metavar="PATH", type=_options.Plain, help="Catalogue file.")
def _remove(name: str, *, target: Any) -> int:
    """Take the record NAME out of your own catalogue; its file stays."""
    from attnprobe.catalogue import own
    from attnprobe.cli._console import say

    place = target or own.path()
    own.remove(name, place)
    say(f"removed {name} from {place}")
    return 0
