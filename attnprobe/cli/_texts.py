"""What people type that becomes a label, a folder or a list: refused or made safe."""

import re
from pathlib import Path

import click

LONGEST_NAME = 200
LONGEST_FOLDER = 80  # bytes; file systems take 255


def label(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a label that a line of a table cannot show."""
    if value is None:
        return None
    _check_unicode(ctx, param, value)
    if not value.isprintable():
        raise click.BadParameter(f"{value!r} holds control characters", ctx, param)
    if len(value) > LONGEST_NAME:
        raise click.BadParameter(
            f"{len(value)} characters; at most {LONGEST_NAME} are allowed", ctx, param
        )
    return value


def labels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse labels that a line of a table cannot show, and labels that repeat."""
    for value in values:
        label(ctx, param, value)
    if len(set(values)) < len(values):
        raise click.BadParameter("a label is given twice", ctx, param)
    return values


def numbers(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """Split every "name=value" and return the numbers by name."""
    found = {}
    for text in values:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER", ctx, param) from error
    return found


def steps(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Split numbers at commas."""
    if value is None:
        return None
    try:
        return tuple(float(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers", ctx, param) from error


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse what is neither N nor NxN."""
    if value is not None and not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})?", value):
        raise click.BadParameter(f"{value!r} is neither N nor ROWSxCOLUMNS", ctx, param)
    return value


def output(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Refuse an output path that is no text, which would be the current folder or unnameable."""
    if value is None:
        return None
    _check_unicode(ctx, param, value)
    if not value:
        raise click.BadParameter("the path is empty", ctx, param)
    return Path(value)


def listed(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Split every value at commas; a name given twice counts once."""
    names = [name.strip() for value in values for name in value.split(",")]
    if not all(names):
        raise click.BadParameter("a name is empty", ctx, param)
    return tuple(dict.fromkeys(names))


def folder_name(name: str | None, checkpoint: str) -> str:
    """Return one safe part of a path from a label or else from what names a checkpoint.

    >>> folder_name("a/../b c", ""), folder_name(None, "weights/mae.pth"), folder_name("..", "")
    ('a-..-b-c', 'mae', 'run')
    """
    path = Path(checkpoint.replace(":", "-"))
    generic = path.stem in ("model", "pytorch_model", "checkpoint")
    text = name or (generic and path.parent.name) or path.stem
    safe = re.sub(r"[^\w.+=-]+", "-", text).lstrip(".-")
    return safe.encode()[:LONGEST_FOLDER].decode(errors="ignore") or "run"


def _check_unicode(ctx: click.Context, param: click.Parameter, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(f"{value!r} is not valid UTF-8", ctx, param) from error
