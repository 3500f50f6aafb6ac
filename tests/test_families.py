"""Every attention family is captured as it is, or refused by name."""

import re

import families
import numpy as np
import pytest
import torch

from attnprobe.attention import left_out
from attnprobe.capture import capture
from attnprobe.errors import AttnprobeError
from attnprobe.kernels import attention_stats
from attnprobe.tensors import AttentionInputs
from attnprobe.types import LayerInfo, TokenGrid

KNOWN = {name: family for name, family in families.FAMILIES.items() if family.layers}
REFUSED = {name: family for name, family in families.FAMILIES.items() if not family.layers}
ALL = frozenset({"distance", "entropy", "prefix_mass", "kl"})


@pytest.mark.parametrize("name", KNOWN)
def test_captured_as_the_model_has_it(name):
    family = KNOWN[name]
    found = families.census(family)
    assert found.layers == found.compared == family.layers
    assert found.unplaced == family.unplaced
    assert found.worst <= families.CLOSE
    assert found.hidden <= families.CLOSE
    assert found.same
    row = next(x for x in families.PAGE.read_text().splitlines() if x.startswith(f"| {name} |"))
    assert f"{found.layers} of {family.layers}" in row
    bound = re.search(r"\| (0|1e-\d+) \|", row)
    assert bound
    assert found.worst <= 10 * float(bound[1])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    model, images = families.build(REFUSED[name])
    told = re.escape(REFUSED[name].refused)
    with pytest.raises(AttnprobeError, match=told), torch.no_grad(), capture(model):
        model(images)
    row = f"| {name} | `{REFUSED[name].model}` | {REFUSED[name].kind} | refused |"
    assert row in families.PAGE.read_text()


def test_channel_attention_is_left_out_by_name():
    model, _ = families.build(families.FAMILIES["DaViT"])
    assert set(left_out(model)) == {f"stages.{stage}.blocks.0.1.attn" for stage in range(4)}


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize(
    "grid",
    [
        TokenGrid(4, 4, (8, 8), keys=TokenGrid(2, 2, (16, 16))),
        TokenGrid(2, 2, (16, 16), origin=(4, 4), keys=TokenGrid(4, 4, (8, 8))),
        TokenGrid(4, 6, (8, 8), prefix=1, keys=TokenGrid(2, 2, (16, 24))),
        TokenGrid(4, 4, (8, 8), window=(2, 2), dilation=(2, 2)),
        None,
    ],
    ids=["pooled keys", "pooled queries", "prefix", "dilated", "class"],
)
def test_the_kernel_measures_it_as_float64_does(grid, step):
    torch.manual_seed(0)
    queries, keys = (grid.queries + grid.prefix, grid.tokens) if grid else (1, 9)
    windows = 4 if grid and grid.window else 1
    logits = 3 * torch.randn(2 * windows, 3, queries, keys)
    empty = torch.zeros(1, 1, 1, 1)
    inputs = AttentionInputs(
        LayerInfo(0, "layer", 3, 1, grid),
        2,
        empty.expand(2 * windows, 3, queries, 1),
        empty.expand(2 * windows, 3, keys, 1),
        0.0,
        logits,
        step,
    )
    want = ALL if grid else ALL - {"distance", "prefix_mass"}
    truth = attention_stats(inputs, want, implementation="reference")
    for found, true in zip(attention_stats(inputs, want), truth, strict=True):
        if true is not None:
            torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-5)


def test_distances_by_hand():
    pooled = TokenGrid(1, 4, (8, 8), keys=TokenGrid(1, 2, (8, 16)))
    np.testing.assert_allclose(pooled.distances()[0], [4, 20])  # centres 4 from 8 and 24
    strided = TokenGrid(1, 2, (8, 16), origin=(4, 4), keys=TokenGrid(1, 4, (8, 8)))
    np.testing.assert_allclose(strided.distances(), [[0, 8, 16, 24], [16, 8, 0, 8]])
    dilated = TokenGrid(1, 4, (8, 8), window=(1, 2), dilation=(1, 2))
    np.testing.assert_allclose(dilated.distances(), [[0, 16], [16, 0]])
