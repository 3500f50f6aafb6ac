"""attnprobe analyze: measure every attention head of a checkpoint."""

from pathlib import Path
from typing import Any

import click

from attnprobe.cli import _options

JSON = """With --json: {out, name, images, skipped, assumed, layer_means: [{metric, layer, value,
low, high, unit, ...}]}; layers count from 0 there. Values per head are in OUT/tables."""


@click.command(name="analyze", epilog=JSON)
@click.argument("checkpoint")
@_options.measuring
@_options.conventions
@_options.loading
@_options.out("runs/NAME")
@_options.overwrite
@_options.go_on
@_options.config
@click.option("--dry-run", is_flag=True, help="Print the plan and the memory estimate, and stop.")
@_options.as_json
def command(checkpoint: str, images: str, out: Path | None, **values: Any) -> int:
    """Measure every attention head of CHECKPOINT.

    CHECKPOINT is a file (.pth .pt .bin .safetensors .npz), a folder, a name from `attnprobe list
    checkpoints`, timm:NAME or hf:OWNER/REPO. Writes tables with 95% intervals and report.html.
    What is measured outlives an interruption: see --resume. `torchrun --nproc-per-node 4 -m
    attnprobe analyze ...` shares the images among processes.

    \b
    attnprobe analyze simmim_vit_base.pth -i photos/ --limit 200
    attnprobe analyze timm:vit_base_patch16_224.mae -m distance -m entropy
    """
    from attnprobe.cli import _plan, _run, _texts

    as_json, overwrite, resume = (values.pop(n) for n in ("as_json", "overwrite", "resume"))
    loading = {name: values.pop(name) for name in ("name", *_options.LOADING)}
    dry_run = values.pop("dry_run")
    config = _run.settings(values)
    if dry_run:
        return _plan.show(checkpoint, loading, batch=config.batch_size, as_json=as_json)
    target = out or Path("runs", _texts.folder_name(loading["name"], checkpoint))
    if out is None and (target / "objective.safetensors").exists():  # the training run itself
        target = target.with_name(f"{target.name}-attention")
    return _run.run(
        checkpoint,
        images,
        config,
        out=target,
        overwrite=overwrite,
        resume=resume,
        as_json=as_json,
        loading=loading,
    )
