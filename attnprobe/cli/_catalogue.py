"""What the commands of `attnprobe checkpoints` do."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from attnprobe import catalogue
from attnprobe.catalogue import own, records
from attnprobe.cli._console import put_json, say


def add(name: str, facts: dict[str, Any], *, to: Path | None, overwrite: bool, trust: bool) -> int:
    """Write a record after completing and checking it."""
    from attnprobe.checkpoints import recording

    given = {field: value for field, value in facts.items() if value is not None}
    record = recording.completed(name, given, trust=trust)
    target = to or own.path()
    own.add(record, target, overwrite=overwrite)
    say(f"wrote {name} to {target}")
    if not to and catalogue.origin(name) != "own":
        say(f"{name} now means your record, not the shipped one")
    return 0


def fetch(names: tuple[str, ...], *, as_json: bool) -> int:
    """Fetch the weights of records; print where each lies and its hash."""
    wanted = [catalogue.find(name) for name in names]  # a wrong name is told before any download
    from attnprobe.checkpoints.origins import hub, sources
    from attnprobe.checkpoints.reading import hashing

    rows = []
    for record in wanted:
        try:
            if record.source.startswith(records.TIMM):
                path, known = hub.fetch(record.source), ""
            else:
                located = sources.of_record(record)
                path, known = located.path or Path(), located.sha256
        except KeyboardInterrupt:
            say("interrupted; the same command goes on from here")
            raise click.exceptions.Exit(130) from None
        row = {"name": record.name, "path": str(path), "sha256": known or hashing.digest(path)}
        rows.append(row)
        if not as_json:
            click.echo(f"{row['path']}\nsha256 {row['sha256']}")
    if as_json:
        put_json(rows)
    return 0


def show(name: str, *, as_json: bool) -> int:
    """Print one record."""
    from attnprobe.checkpoints.origins import cache

    record = catalogue.find(name)
    row: dict[str, Any] = {**asdict(record), "from": catalogue.origin(name)}
    if "://" in record.source or record.source.startswith(records.FILE):
        place = cache.place(record)
        row |= {"path": str(place), "fetched": place.is_file()}
    if as_json:
        put_json(row)
        return 0
    _print({key: value for key, value in row.items() if value not in ("", (), 0)})
    return 0


def _print(row: dict[str, Any]) -> None:
    """Print a line a field, which a terminal wraps without cutting what has to be copied."""
    width = max(map(len, row)) + 2
    for key, value in row.items():
        click.echo(f"{key.replace('_', ' '):<{width}}{_told(value)}")


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
