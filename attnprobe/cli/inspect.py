"""attnprobe inspect: say what a checkpoint is."""

from typing import Any

import click

from attnprobe.cli import _options


@click.command(name="inspect")
@click.argument("checkpoint")
@_options.loading
@click.option(
    "--batch-size",
    "--batch",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Batch for the memory estimate.",
)
@_options.as_json
def command(checkpoint: str, batch_size: int, *, as_json: bool, **loading: Any) -> int:
    """Say what CHECKPOINT is.

    Prints its format, architecture and layers, and what became of its tensors.

    \b
    attnprobe inspect mae_pretrain_vit_base.pth
    attnprobe inspect timm:deit_tiny_patch16_224.fb_in1k --json
    """
    from attnprobe.cli import _plan

    return _plan.show(checkpoint, loading, batch=batch_size, as_json=as_json)
