"""Text from checkpoints and file names without the characters that steer a terminal or page."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from attnprobe.results import Result
from attnprobe.types import Provenance

MARKUP = re.compile("[<>&]")
MARK = "\N{REPLACEMENT CHARACTER}"
# C0, delete and C1; bidirectional overrides; halves of characters, which no file can hold
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def legible(value: Any) -> Any:
    r"""Replace what steers in every text of a value, inside lists and mappings too.

    >>> legible("\x1b[2Jdog.png") == "\N{REPLACEMENT CHARACTER}[2Jdog.png"
    True
    """
    if isinstance(value, str):
        return UNSAFE.sub(MARK, value)
    if isinstance(value, Mapping):
        return {legible(key): legible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(legible(item) for item in value)
    return value


def legible_result(result: Result) -> Result:
    """A result whose names, settings and tables are all legible; its numbers are the same."""
    return replace(
        result,
        name=legible(result.name),
        config=legible(result.config),
        model=legible(result.model),
        provenance=Provenance(**legible(asdict(result.provenance))),
        layers=legible_frame(result.layers),
        images=legible_frame(result.images),
        tables={legible(name): legible_frame(table) for name, table in result.tables.items()},
    )


def legible_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts are legible, units without markup; its numbers are the same."""
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    legibly = frame.assign(**{str(name): frame[name].map(legible) for name in words})
    return legibly.assign(unit=legibly["unit"].map(unmarked)) if "unit" in legibly else legibly


def unmarked(value: Any) -> Any:
    """Replace what plotly, which reads some HTML in any text, would take for markup.

    >>> unmarked("<b>px") == "\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}px"
    True
    """
    return MARKUP.sub(MARK, value) if isinstance(value, str) else value
