"""Commands made of objectives: every field of a configuration is an option, with its help."""

from dataclasses import Field
from pathlib import Path
from typing import Any

import click

from attnprobe import plugins
from attnprobe.cli import _options, _texts
from attnprobe.options import default_of, described

LABELLED = ("supervised",)  # the others need no labels; known without importing any
PACKAGE = "attnprobe.objectives"


class Objectives(click.Group):
    """A group with one command an objective, made when it is used."""

    def __init__(self, *, labelled: bool, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.labelled = labelled

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in plugins.names(PACKAGE) if (name in LABELLED) == self.labelled]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in self.list_commands(ctx) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, f"Options: {ctx.command_path} {name} --help") for name in self.list_commands(ctx)
        ]
        with formatter.section("Objectives"):
            formatter.write_dl(rows)


class _Sectioned(click.Command):
    """A command whose help lists its options by the section of the configuration."""

    sections: dict[str, list[click.Option]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        ours = {id(option) for options in self.sections.values() for option in options}
        others = [item for item in self.get_params(ctx) if id(item) not in ours]
        for title, params in {"Options": others, **self.sections}.items():
            rows = [row for item in params if (row := item.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(rows)


def _command(name: str) -> click.Command:
    from attnprobe import objectives
    from attnprobe.training.sections import SECTIONS

    objective = objectives.load(name)
    kinds = {name: objective.config, **SECTIONS}
    sections = {
        f"[{title}]": [_option(item) for item in described(kind).values()]
        for title, kind in kinds.items()
    }
    fields = [option.name for options in sections.values() for option in options]

    def run(**values: Any) -> int:
        from attnprobe.cli import _train

        given = {key: values.pop(key) for key in fields}
        told = {key: value for key, value in given.items() if value not in (None, ())}
        return _train.run(objective, told, **values)

    command = _Sectioned(
        name,
        callback=run,
        help=f"Train for {objective.title}.\n\nValues come from the defaults, --recipe, --config "
        "and these options, the later over the earlier.",
        params=[*_shared(), *(option for options in sections.values() for option in options)],
    )
    command.sections = sections
    return command


def _shared() -> list[click.Parameter]:
    def nothing() -> None: ...

    decorated = _options.compose(
        click.option("--recipe", metavar="NAME", help="Begin from it; `attnprobe list recipes`."),
        click.option("--config", type=Path, help="TOML file: a run's config.toml, or edited."),
        click.option("--print-config", is_flag=True, help="Print the whole configuration."),
        _options.out("runs/OBJECTIVE-MODEL"),
        click.option("--resume", is_flag=True, help="Go on with the run in OUT."),
        _options.overwrite,
        _options.trust,
        _options.as_json,
    )(nothing)
    return list(reversed(decorated.__click_params__))  # type: ignore[attr-defined]


def _option(item: Field) -> click.Option:
    """Return the option of one field; unset unless given, so that layers can tell."""
    default, told = default_of(item), item.metadata
    flag = f"--{item.name.replace('_', '-')}"
    shown = _shown(default)
    text = f"{told['help']}{f'  [default: {shown}]' if shown else ''}"
    settings: dict[str, Any] = {"help": text, "default": None}
    if isinstance(default, bool):
        return click.Option([f"{flag}/--no-{flag[2:]}", item.name], **settings)
    if isinstance(default, dict):
        return click.Option(
            [flag.removesuffix("s"), item.name],
            multiple=True,
            metavar="KEY=VALUE",
            callback=_pairs,
            help=text,
        )
    if isinstance(default, list):
        number = "float" in str(item.type)
        return click.Option(
            [flag],
            multiple=True,
            callback=_numbers if number else _texts.listed,
            help=text,
            metavar="X,Y" if number else "NAME",
        )
    kind = click.Choice(told["choices"]) if told["choices"] else type(default)
    short = {"data": "-d", "model": "-m"}.get(item.name)
    return click.Option([*([short] if short else []), flag, item.name], type=kind, **settings)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, list):
        return ",".join(f"{one:g}" if isinstance(one, float) else one for one in default)
    return "" if default in ("", {}) else f"{default}"


def _numbers(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[float] | None:
    words = [word for value in values for word in value.split(",") if word.strip()]
    try:
        return [float(word) for word in words] or None
    except ValueError as error:
        raise click.BadParameter(f"{error}: give numbers, with commas") from error


def _pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any] | None:
    """Read KEY=VALUE, with VALUE as in TOML, or as text."""
    import tomllib

    found: dict[str, Any] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (equals and key.isidentifier()):
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found or None
