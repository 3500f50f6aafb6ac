r"""Tables in LaTeX, set with booktabs and nothing else.

`table` turns any frame into a float that can be `\input`; every text in it is escaped.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnprobe.report.legible import legible

PREAMBLE = (
    r"% needs \usepackage{booktabs}; for letters beyond Latin compile with XeLaTeX or LuaLaTeX"
)
DIGITS = 4  # of the largest number of a column
COLUMN, TEXT = 234.0, 486.0  # pt; widths of one column of a two-column page, and of both
LETTER, GAP = 4.4, 8.0  # pt; width of a letter, and of the space between two columns
ABSENT = "--"
ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # a bracket or a star after the end of a row would be read as its option
    "]": "{]}",
    "*": "{*}",
    "\N{REPLACEMENT CHARACTER}": "{?}",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PRIME}": r"$'$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
}
"""What stands in LaTeX for a character that would not print as itself."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: Its column in the frame.
        heading: What stands over it.
        ends: Columns of the frame with the ends of its interval, which is set beside it.
        places: Decimals of its numbers; found from the largest one when absent.
        lead: Whether it names the rows, and stands again where a wide table is broken.
    """

    key: str
    heading: str
    ends: tuple[str, str] | None = None
    places: int | None = None
    lead: bool = False


def escape(text: str) -> str:
    r"""Return text that LaTeX prints as it is, on one line.

    >>> escape("vit_b/16 & 95 %")
    'vit\\_b/16 \\& 95 \\%'
    """
    line: str = legible(re.sub(r"\s+", " ", text))
    safe = "".join(ESCAPES.get(letter) or letter for letter in line)
    return re.sub(r"([-',])(?=\1)", r"\1{}", safe)  # or LaTeX joins the two to a dash or quote


def table(frame: pd.DataFrame, columns: Sequence[Column], *, caption: str, label: str) -> str:
    r"""Return a frame as a LaTeX float: a `table`, or a `table*` where it is wide.

    What is wider than a page is broken into blocks of columns under each other.

    Args:
        frame: One row a row.
        columns: What to set, from left to right.
        caption: Plain text.
        label: For `\ref`; kept to letters, digits and hyphens.
    """
    cells = {column.key: _cells(frame, column) for column in columns}
    widths = {column.key: _width(column, cells[column.key]) for column in columns}
    blocks = _blocks(columns, widths)
    wide = max(sum(widths[column.key] for column in block) for block in blocks)
    float_ = "table" if wide <= COLUMN else "table*"
    body = "\n  \\par\\medskip\n".join(_tabular(block, cells) for block in blocks)
    return "\n".join(
        [
            PREAMBLE,
            rf"\begin{{{float_}}}",
            r"  \centering",
            rf"  \caption{{{escape(caption)}}}",
            rf"  \label{{tab:{slug(label)}}}",
            r"  \footnotesize",
            rf"  \setlength{{\tabcolsep}}{{{GAP / 2:g}pt}}",
            r"  \smallskip",
            body,
            rf"\end{{{float_}}}",
            "",
        ]
    )


def slug(text: str) -> str:
    """Return text that can be a label or a file name.

    >>> slug("Head_KL %")
    'head-kl'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def decimals(*numbers: Any) -> int:
    """Return the decimals that give the largest number four digits."""
    tops = [float(series.abs().max()) for series in numbers if series.notna().any()]
    top = max(tops, default=0.0)
    return min(8, max(0, DIGITS - 1 - math.floor(math.log10(top)))) if top > 0 else 1


def _cells(frame: pd.DataFrame, column: Column) -> list[list[str]]:
    """Return the cells of one column: the value, and the interval where there is one."""
    values: Any = frame[column.key]
    if not pd.api.types.is_float_dtype(values):
        return [[_text(value)] for value in values]
    sides: list[Any] = [frame[end] for end in column.ends or ()]
    places = decimals(values, *sides) if column.places is None else column.places
    rows = zip(values, *sides, strict=True)
    return [[_number(value, places), *_interval(ends, places)] for value, *ends in rows]


def _text(value: Any) -> str:
    return ABSENT if value is None or pd.isna(value) or value == "" else escape(str(value))


def _number(value: float, places: int) -> str:
    text = f"{round(value, places) + 0.0:.{places}f}"  # no minus before zero
    return ABSENT if math.isnan(value) else text.replace("-", "$-$")


def _interval(ends: list[float], places: int) -> list[str]:
    if not ends:
        return []
    if any(math.isnan(end) for end in ends):
        return [""]
    low, high = (_number(end, places) for end in ends)
    return [rf"{{\scriptsize [{low}, {high}]}}"]


def _width(column: Column, cells: list[list[str]]) -> float:
    """Return about how many points a column takes."""
    parts = zip(*cells, strict=True)
    inside = sum(max(_letters(cell) for cell in part) * LETTER + GAP for part in parts)
    return max(inside, len(column.heading) * LETTER + GAP)


def _letters(cell: str) -> int:
    """Return about how many letters a cell prints."""
    return len(re.sub(r"\\[a-z]+|[{}$\\]", "", cell).strip())


def _blocks(columns: Sequence[Column], widths: dict[str, float]) -> list[list[Column]]:
    """Break columns into blocks that fit a page, of about equal width."""
    lead = [column for column in columns if column.lead]
    rest = [column for column in columns if not column.lead]
    room = TEXT - sum(widths[column.key] for column in lead)
    count = max(1, math.ceil(sum(widths[column.key] for column in rest) / max(room, 1.0)))
    size = max(1, math.ceil(len(rest) / count))
    return [[*lead, *rest[at : at + size]] for at in range(0, len(rest), size)] or [lead]


def _tabular(columns: list[Column], cells: dict[str, list[list[str]]]) -> str:
    spans = [len(cells[column.key][0]) if cells[column.key] else 1 for column in columns]
    shape = "".join(
        ("l" if _wordy(cells[column.key]) else "r") + "@{\\ }l" * (span - 1)
        for column, span in zip(columns, spans, strict=True)
    )
    heads = [
        rf"\multicolumn{{{span}}}{{c}}{{{escape(column.heading)}}}"
        if span > 1
        else escape(column.heading)
        for column, span in zip(columns, spans, strict=True)
    ]
    rows = zip(*(cells[column.key] for column in columns), strict=True)
    lines = [rf"  \begin{{tabular}}{{@{{}}{shape}@{{}}}}", r"    \toprule"]
    lines += [f"    {' & '.join(heads)} \\\\", r"    \midrule"]
    lines += [f"    {' & '.join(part for cell in row for part in cell)} \\\\" for row in rows]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}"])


def _wordy(cells: list[list[str]]) -> bool:
    """Whether a column holds words, which are set from the left."""
    return any(re.search(r"[A-Za-z]", cell[0].replace(r"\times", "")) for cell in cells)
