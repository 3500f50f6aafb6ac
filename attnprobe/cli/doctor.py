"""attnprobe doctor: check every kernel on this machine, or a model."""

from typing import Any

import click

from attnprobe.cli import _options


@click.command(name="doctor")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--model", metavar="CHECKPOINT", help="Check how this model is read and measured.")
@_options.loading
@_options.as_json
def command(device: str, model: str | None, *, as_json: bool, **loading: Any) -> int:
    """Check the kernels of this machine, or how a model is read and measured.

    Every kernel against float64, and the known answers. With --model: every weight loaded, every
    attention module reports, what is captured are the model's own probabilities, the output does
    not change by a bit, the kernel agrees with float64. Exits with 1 if anything disagrees.

    \b
    attnprobe doctor
    attnprobe doctor --model mine.pth --plugin my_format.py
    """
    import attnprobe
    from attnprobe import conformance, doctor
    from attnprobe.cli import EXIT_FAILURE
    from attnprobe.cli._console import console, put_json

    if model is None and any(value for value in loading.values()):
        raise click.UsageError("options of loading need --model CHECKPOINT")
    if model is None:
        checks = doctor.checks(device)
    else:
        checks = conformance.checks(attnprobe.load(model, **loading), device)
    if as_json:
        put_json([check._asdict() for check in checks])
    else:
        console().print(doctor.table(checks))
    return 0 if all(check.passed for check in checks) else EXIT_FAILURE
