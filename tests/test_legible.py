"""No text of a result can steer what shows it."""

from dataclasses import replace

import pytest
from synthetic import synthetic_result

from attnprobe.report import render, report
from attnprobe.report.legible import legible_result

CODES = [*range(0x20), 0x7F, 0x85, 0x9B, 0x202E, 0x2066, 0xDC80]


@pytest.mark.parametrize("code", [0x00, 0x08, 0x1B, 0x9B, 0x202E, 0xDC80])
def test_control_characters_do_not_reach_the_page(code, tmp_path):
    bad = f"dog{chr(code)}cat"
    result = synthetic_result(bad, layers=2, assumed=[bad], source=bad)
    result.model["ledger"] = {"dropped": [bad]}
    result.model["model_args"] = {bad: bad}
    if code < 0xD800:  # tables hold no halves of characters
        result.layers["name"] = bad
        result.tables["entropy"]["definition"] = bad
        result.tables["prefix_mass"]["token"] = bad
    page = report([result], tmp_path / "page.html").read_text(encoding="utf-8")
    ours = page.replace(_plotly(), "")
    assert chr(code) not in ours
    assert f"dog\\u{code:04x}cat" not in ours
    assert ours.count("dog\N{REPLACEMENT CHARACTER}cat") >= 8


def _plotly():
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script").replace("<!--", "<\\!--")


def test_every_code_is_replaced_and_other_text_and_numbers_are_kept():
    kept = "é字🐶 <b>\u2028"
    result = legible_result(synthetic_result("".join(map(chr, CODES)) + kept))
    assert result.name == "\N{REPLACEMENT CHARACTER}" * len(CODES) + kept
    plain = synthetic_result()
    for name, table in legible_result(plain).tables.items():
        assert table.equals(plain.tables[name])


def test_a_setting_that_is_a_mapping_has_one_line_a_key():
    args = {"img_size": [32, 32], "class_token": True, "<b>": "<i>"}
    page = render([synthetic_result(layers=1, model_args=args)])
    assert "img_size = 32, 32<br>class_token = True<br>&lt;b&gt; = &lt;i&gt;</dd>" in page


def test_units_carry_no_markup_into_figures():
    result = synthetic_result()
    link = '<a href="https://example.org/">px</a>'
    tables = {name: table.assign(unit=link) for name, table in result.tables.items()}
    page = render([replace(result, tables=tables)])
    text = page[page.index('id="payload"') :].replace("\\u003c", "<")
    assert "<a href" not in text
    assert "\N{REPLACEMENT CHARACTER}a href" in text
