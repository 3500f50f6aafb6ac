"""Documents say what the program does."""

import re

from attnprobe.checkpoints import load
from tests.documents import DOCS, with_formats


def test_the_table_of_formats_is_the_formats():
    text = (DOCS / "checkpoints.md").read_text()
    assert with_formats(text) == text, "run python tests/documents.py"


def test_the_example_of_a_format_runs(tmp_path):
    text = (DOCS / "checkpoints.md").read_text()
    plugin = tmp_path / "my_format.py"
    plugin.write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    assert load("timm:test_vit?pretrained=0", plugins=[plugin]).spec.format == "timm-random"
