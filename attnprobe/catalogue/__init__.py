"""The catalogue: known checkpoints as a table of facts, one TOML table each.

The shipped one lists public checkpoints; a user's own file is laid over it. Nothing here
imports torch, so that `attnprobe list checkpoints` answers at once.
"""

from dataclasses import replace
from functools import cache

from attnprobe import shipped
from attnprobe.catalogue import own, records
from attnprobe.catalogue.records import CheckpointRecord as CheckpointRecord
from attnprobe.errors import CheckpointError
from attnprobe.types import CheckpointSpec


def catalogue() -> dict[str, CheckpointRecord]:
    """Return every record by name; the user's own go before shipped ones of the same name.

    Raises:
        CheckpointError: The user's own catalogue cannot be read.

    >>> catalogue()["mae_vit_base"].objective
    'mim'
    """
    return {**_shipped(), **own.records()}


def find(name: str) -> CheckpointRecord:
    """Return one record.

    Raises:
        CheckpointError: There is none of that name.
    """
    known = catalogue()
    if name not in known:
        raise CheckpointError(f"the catalogue has no {name}", near(name))
    return known[name]


def near(name: str) -> str:
    """Return what a mistyped name may have meant, as a next step."""
    import difflib

    known = difflib.get_close_matches(name, catalogue(), n=4)
    told = f"did you mean one of: {', '.join(known)}; or " if known else ""
    return f"{told}run `attnprobe list checkpoints`"


def named_by(address: str) -> CheckpointRecord | None:
    """Return the record whose source is an address."""
    return next((item for item in catalogue().values() if item.source == address), None)


def origin(name: str) -> str:
    """Say whose a record is: shipped, own, or own in place of a shipped one."""
    if name not in own.records():
        return "shipped"
    return "own, over a shipped one" if name in _shipped() else "own"


def complete(spec: CheckpointSpec, record: CheckpointRecord) -> CheckpointSpec:
    """Let a record say what shapes could not: the objective, and where it came from."""
    objective = spec.objective if record.objective == "unknown" else record.objective
    return replace(spec, source=record.name, objective=objective)


@cache
def _shipped() -> dict[str, CheckpointRecord]:
    return records.read(shipped.path("checkpoints.toml"))
