"""`--config`: a TOML file that gives a command's options other defaults."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

import click

REFUSED = {
    "trust": "only the command line can trust a file",
    "plugins": "only the command line can let a file run",
    "config": "a file of options cannot name another",
    "as_json": "give --json on the command line",
    "dry_run": "give --dry-run on the command line",
    "help": "give --help on the command line",
}


def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Make a TOML file the defaults of the command's options, after checking every value."""
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise click.BadParameter(f"cannot read {path}: {error}", ctx, param) from error
    options = {item.name: item for item in ctx.command.params if item.name}
    found = {}
    for key, value in settings.items():
        try:
            found[key] = _checked(ctx, options, key, value)
        except click.BadParameter as error:
            raise click.BadParameter(f"{path}: {error.message}", ctx, param) from error
    ctx.default_map = {**(ctx.default_map or {}), **found}


def _checked(
    ctx: click.Context, options: dict[str, click.Parameter], key: str, value: Any
) -> str | int | bool | list[str]:
    """Return the value of one key as its option takes it, or say what is wrong with it."""
    if key in REFUSED:
        raise click.BadParameter(f"{key!r} cannot be set in a file; {REFUSED[key]}")
    if key not in options:
        near = difflib.get_close_matches(key, options, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise click.BadParameter(f"unknown key {key!r}{hint}")
    option = options[key]
    many = _takes_many(option)
    value = [value] if many and isinstance(value, str) else value
    kind, wanted = _kind(option)
    fits = [type(item) is kind for item in value] if many and type(value) is list else []
    if not (all(fits) and type(value) is list if many else type(value) is kind):
        raise click.BadParameter(f"{key!r} must be {wanted}, got {value!r}")
    try:
        option.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise click.BadParameter(f"{key!r}: {error.message}") from error
    return value


def _kind(option: click.Parameter) -> tuple[type, str]:
    """Return the one type of TOML value that an option takes, and its name."""
    if _takes_many(option):
        return str, "a string or a list of strings"
    if getattr(option, "is_flag", False):
        return bool, "true or false"
    if option.type.name in {"integer", "integer range"}:
        return int, "an integer"
    if option.type.name in {"float", "float range"}:
        return float, "a number with a decimal point"
    return str, "a string"


def _takes_many(option: click.Parameter) -> bool:
    return getattr(option, "multiple", False) or option.nargs == -1
