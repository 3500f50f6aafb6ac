r"""One LaTeX float a figure, with its caption and a label, ready to be copied or `\input`."""

from collections.abc import Sequence
from typing import Any

from attnprobe.plots import Plot
from attnprobe.publication.latex import escape, slug
from attnprobe.publication.paper import WIDTHS, Paper

PREAMBLE = r"% needs \usepackage{graphicx}, and \graphicspath{{...}} where this folder is elsewhere"


def floats(pairs: Sequence[tuple[Plot, Any]], kind: str, look: Paper) -> str:
    """Return the floats of all plots as LaTeX.

    Args:
        pairs: Plots, each with what it drew.
        kind: Ending of the files that LaTeX is to include.
        look: Width of the figures; wide ones span both columns of a page.
    """
    wide = "*" if look.width > WIDTHS["column"] else ""
    return "\n\n".join([PREAMBLE, *(_float(*pair, kind, wide) for pair in pairs)]) + "\n"


def _float(plot: Plot, subject: Any, kind: str, wide: str) -> str:
    alone = subject[0].name if isinstance(subject, list) and len(subject) == 1 else ""
    title = f"{plot.title}: {alone}" if alone else plot.title
    return "\n".join(
        [
            rf"\begin{{figure{wide}}}",
            r"  \centering",
            rf"  \includegraphics{{{plot.name}.{kind}}}",
            rf"  \caption{{{escape(f'{title}. {plot.caption}'.strip())}}}",
            rf"  \label{{fig:{slug(plot.name)}}}",
            rf"\end{{figure{wide}}}",
        ]
    )
