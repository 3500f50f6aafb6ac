"""Parts of the documents that the program knows better: written here, compared by a test."""

from pathlib import Path

from attnprobe.formats import formats

DOCS = Path(__file__).parent.parent / "docs"
START, END = "<!-- formats: written by `python tests/documents.py` -->\n", "<!-- end -->"


def formats_table():
    rows = [f"| `{item.name}` | {item.description} | {item.objective} |" for item in formats()]
    return "\n".join(["| format | what it is | objective |", "|---|---|---|", *rows]) + "\n"


def with_formats(text):
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{formats_table()}{END}{after}"


if __name__ == "__main__":
    page = DOCS / "checkpoints.md"
    page.write_text(with_formats(page.read_text()))
