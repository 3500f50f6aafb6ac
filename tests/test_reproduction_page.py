"""The page of the study says what its tables say."""

import pandas as pd
import pytest
from reproduction_page import PAGE, blocks, main, read, written
from test_study import write_study

from attnprobe.study import judging, load
from attnprobe.study.settings import METHODS
from attnprobe.study.statements import PAPER, statements

SEEDED = {"value": [0.4, 0.5], "by_seed": ["0.39, 0.41", "0.5"], "seeds": [2, 1]}
TABLES = {
    "findings": pd.DataFrame(
        {
            "topic": ["T", "U"],
            "says": ["A.", "B."],
            "place": [PAPER, "elsewhere"],
            "measured": ["1.", "2."],
            "verdict": [judging.HOLDS, judging.ABSENT],
            "rule": ["x, above 1", "y"],
        }
    ),
    "accuracies": pd.DataFrame({"method": ["simmim", "mae"], "score": ["knn", "knn"], **SEEDED}),
    "drops": pd.DataFrame({"method": ["simmim"] * 2, "dropped": [0, 2], **SEEDED}),
    "emergence": pd.DataFrame(
        {
            "method": ["mae"] * 2,
            "seed": [0] * 2,
            "metric": ["distance"] * 2,
            "step": [0, 10],
            "epoch": [0, 1.5],
            "value": [1, 0.5],
        }
    ),
    "layers": pd.DataFrame(
        {
            "method": ["mae"] * 3,
            "seed": [0] * 3,
            "metric": ["distance", "distance", "head_kl"],
            "layer": [1, 2, 1],
            "value": [0.5, 0.6, 0.1],
            "kept": [0.7] * 3,
        }
    ),
    "course": pd.DataFrame(
        {"method": "mae", "seed": 0, "step": [5, 9], "epoch": [0.52, 1], "kept": [1.5, 0.7]}
    ),
    "missing": pd.DataFrame({"step": ["comparison"], "state": ["not done yet"]}),
}
TABLES |= {
    f"further_{name}": TABLES[name].assign(study="mine")
    for name in ("findings", "layers", "emergence", "accuracies", "course")
}


@pytest.fixture
def page(tmp_path):
    """A copy of the page, without the words between its blocks."""
    comments = [line for line in PAGE.read_text().splitlines() if line.startswith("<!-- ")]
    path = tmp_path / PAGE.name
    path.write_text("".join(f"{line}\n" for line in comments))
    return path


def test_the_page_is_what_its_tables_give():
    text = PAGE.read_text()
    tables = read(PAGE.with_suffix(""))
    assert written(text, tables) == text, "run python tests/reproduction_page.py"
    assert all(name in text for name in METHODS.values())


def test_the_tables_are_of_todays_statements_and_verdicts_follow_from_their_numbers():
    tables = read(PAGE.with_suffix(""))
    words = ["finding", "topic", "says", "place", "rule"]
    known = [(one.key, one.topic, one.says, one.place, one.rule) for one in statements()]
    studies = [held for _, held in tables["further_findings"].groupby("study", sort=False)]
    for table in (tables["findings"], *studies):
        assert list(table[words].itertuples(index=False, name=None)) == known
        verdicts_follow(table.fillna({"low": 0, "high": 0, "limit": 0}))


def verdicts_follow(table):
    decided = table[~table["verdict"].isin([judging.OPEN, judging.ABSENT])]
    assert len(decided)
    for row in decided.itertuples():
        side = row.low > row.limit if "above" in row.rule else row.high < row.limit
        other = row.high < row.limit if "above" in row.rule else row.low > row.limit
        holds = row.verdict in (judging.HOLDS, judging.ONE_HOLDS)
        assert (side, other) == (holds, not holds), row.finding
        one = row.verdict in (judging.ONE_HOLDS, judging.ONE_FAILS)
        assert one == (row.over == judging.IMAGES), row.finding
    for row in table[table["verdict"] == judging.OPEN].dropna(subset=["value"]).itertuples():
        assert row.low <= row.limit <= row.high, row.finding


def test_blocks_are_the_numbers_of_the_tables():
    found = blocks(TABLES)
    assert "| SimMIM | - | 40.0 (39.0, 41.0) | - | - | 50.0 |" in found["accuracies"]
    assert "| MAE | - | 50.0 | - | - | - |" in found["accuracies"]
    assert found["counts"] == (
        "Of 1 statements of the paper: 1 hold. "
        "Of 1 statements that are not the paper's: 1 have not been measured.\n"
    )
    assert "| A. | 1. Holds where: x, above 1. | holds |" in found["findings"]
    assert "| B." not in found["findings"]
    assert "| MAE | 1 (0), 0.5 (1.5) |  |" in found["emergence"]
    assert "| MAE, seed 0 | 0.5, 0.6 |  | 0.1 | 0.70 |" in found["layers"]
    assert "| MAE, seed 0 | 1.50 (0.5), 0.70 (1) |" in found["course"]
    assert "| mine, MAE, seed 0 | 1.50 (0.5), 0.70 (1) |" in found["further_course"]
    assert "| mine | A. | 1. | holds |" in found["further_findings"]
    assert "| B." not in found["further_findings"]
    assert "| mine, MAE | 1 (0), 0.5 (1.5) |  |" in found["further_emergence"]
    assert "| mine, MAE, seed 0 | 0.5, 0.6 |" in found["further_layers"]
    assert "| mine, MAE | - | 50.0 | - | - |" in found["further_accuracies"]
    assert found["missing"] == "- `comparison`: not done yet\n"
    whole = blocks(TABLES | {"missing": TABLES["missing"].head(0)})
    assert "every step of the study has been run" in whole["missing"]


def test_a_page_is_written_from_a_study(page, tmp_path):
    study = str(write_study(tmp_path / "study"))
    main([study, study], page)
    text = page.read_text()
    assert "| SimMIM | - | 39.9 | 49.9 | 82.9 | 69.8 |" in text
    assert "- `comparison`: not done yet" in text
    name = load(study).settings["name"]
    assert f"| {name}, SimMIM | - | 39.9 | 49.9 | 82.9 |" in text
    assert f"| {name}, SimMIM, seed 0 |" in text
    for again in ([], [study]):
        main(again, page)
        assert page.read_text() == text


def test_a_page_without_a_block_is_refused(page, tmp_path):
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no block for accuracies"):
        main([str(write_study(tmp_path / "study"))] * 2, page)
