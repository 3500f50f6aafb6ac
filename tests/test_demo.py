"""The demo does the main job on what ships, and shows its page where somebody sees it."""

import json
import webbrowser

import pandas as pd
import pytest

from attnprobe.cli import demo


@pytest.fixture
def shown(monkeypatch):
    pages = []
    monkeypatch.setattr(webbrowser, "open", pages.append)
    return pages


def test_the_demo_compares_what_ships(tmp_path, command, shown):
    out = tmp_path / "demo"
    printed = json.loads(command("demo", "-o", out, "--json", "--open").out)
    assert printed["models"] == list(demo.CHECKPOINTS)
    assert printed["skipped"] == []
    assert {"supported", "contradicted"} & {row["verdict"] for row in printed["verdicts"]}
    assert shown == [(out / "report.html").resolve().as_uri()]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in demo.CHECKPOINTS)
    assert not pd.read_csv(out / "verdicts.csv").empty

    said = command("demo", "-o", out, status=1).err
    assert "--overwrite" in said
    assert len(shown) == 1  # nothing new, and no terminal
