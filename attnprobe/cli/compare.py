"""attnprobe compare: set models against each other, with statistics and verdicts."""

from typing import Any

import click

from attnprobe.cli import _options

JSON = """With --json: {out, models, notes, skipped, verdicts: [{claim, statement, verdict,
evidence, value, low, high, ...}], overall: [{metric, value, low, high, p, ...}]}; models count from
0 there, and values are a - b."""


@click.command(name="compare", epilog=JSON)
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@_options.measuring_to_compare
@_options.conventions
@_options.comparing
@_options.out("runs/compare-NAMES")
@_options.overwrite
@_options.resume
@_options.config
@_options.as_json
@click.pass_context
def command(context: click.Context, models: tuple[str, ...], **values: Any) -> int:
    """Compare two to eight MODELs on the same images.

    A MODEL is a checkpoint (as in `attnprobe analyze`) or the folder of a saved run. Checkpoints
    beside saved runs are measured as those were. Writes tables of paired differences with
    intervals and tests, verdicts on the claims of the paper, and report.html. What is measured
    outlives an interruption: see --resume.

    \b
    attnprobe compare mae.pth deit.pth -i photos/ --limit 500 --name MAE --name DeiT
    attnprobe compare runs/mae runs/deit --threshold local=0.9
    """
    from attnprobe.cli import _compare

    given = {
        name
        for name in values
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    shown = {name: values.pop(name) for name in ("out", "overwrite", "resume", "as_json")}
    return _compare.run(models, values, given, **shown)
