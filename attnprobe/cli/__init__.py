"""The `attnprobe` command: parse, call, print. Heavy imports happen inside commands.

Exit codes: 0 done, 1 failure, 2 usage, 3 partial result, 130 interrupted.
"""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from attnprobe import plugins
from attnprobe.errors import AttnprobeError
from attnprobe.processes import launched

EXIT_FAILURE, EXIT_PARTIAL, EXIT_INTERRUPTED = 1, 3, 130


class _Commands(click.Group):
    """A group whose commands are the files of this package, imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(plugins.names(__name__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = plugins.names(__name__)
        return plugins.load(__name__, cmd_name, "command") if cmd_name in known else None


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="attnprobe")
def attnprobe() -> None:
    """Measure what pre-trained vision transformers look at.

    \b
    attnprobe demo                           measure the checkpoint in the box
    attnprobe analyze ckpt.pth -i photos/    measure every attention head
    attnprobe compare a.pth b.pth            what sets models apart, and how surely
    attnprobe pretrain simmim -d photos/     train a checkpoint, and watch its attention
    attnprobe inspect ckpt.pth               say what a checkpoint is
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every failure becomes one message and an exit code."""
    with warnings.catch_warnings(), _terminable():
        warnings.showwarning = _warn
        status = _status(arguments)
    status = status if isinstance(status, int) else 0
    if launched() > 1 and status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # leaving in good order would wait for the other processes
    sys.exit(status)


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM, as launchers and schedulers send it, for Ctrl-C: so that nothing is left."""
    try:
        before = signal.signal(signal.SIGTERM, _interrupt)
    except ValueError:  # not the main thread: its owner decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _status(arguments: list[str] | None) -> Any:
    try:
        status: Any = attnprobe.main(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        status = _say("interrupted; nothing was written", EXIT_INTERRUPTED)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except KeyboardInterrupt:
        status = _say("interrupted; nothing was written", EXIT_INTERRUPTED)
    except AttnprobeError as error:
        status = _say(f"error: {error}", EXIT_FAILURE)
    except BrokenPipeError:
        status = EXIT_FAILURE
    return status


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning on one line, without its place in the source."""
    if _rank() in ("", "0"):
        click.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _say(text: str, status: int) -> int:
    """Print why the command ends; of several processes each says which one it is."""
    rank = _rank()
    if rank in ("", "0") or status != EXIT_INTERRUPTED:
        click.echo(f"process {rank}: {text}" if rank else text, err=True)
    return status


def _rank() -> str:
    """Return the number of this process among those of a launcher, or nothing without one."""
    return os.environ["RANK"] if launched() > 1 else ""
