"""attnprobe doctor: check every kernel on this machine."""

import click

from attnprobe.cli import _options


@click.command(name="doctor")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@_options.as_json
def command(device: str, *, as_json: bool) -> int:
    """Check the kernels of this machine.

    Every kernel against float64, and the known answers. Exits with 1 if anything disagrees.
    """
    from attnprobe import doctor
    from attnprobe.cli import EXIT_FAILURE
    from attnprobe.cli._console import console, put_json

    checks = doctor.checks(device)
    if as_json:
        put_json([check._asdict() for check in checks])
    else:
        console().print(doctor.table(checks))
    return 0 if all(check.passed for check in checks) else EXIT_FAILURE
