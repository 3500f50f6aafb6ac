"""Absent tokens: padding that windows need, against what the models themselves compute."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.spatial.distance import cdist

import attnprobe
from attnprobe import doctor, kernels, measuring
from attnprobe.capture import capture
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.conformance import Softmaxes, unfused
from attnprobe.errors import AttnprobeError, GeometryError
from attnprobe.kernels import blocked, fused, reference
from attnprobe.metrics import distance, entropy, prefix_mass
from attnprobe.results import geometry
from attnprobe.tensors import AttentionInputs
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

ALL = doctor.ALL
SIZE = (52, 76)  # nothing that a window of 3 or 4 tokens divides
SWIN = {"depths": (2, 2), "num_heads": (1, 2), "embed_dim": 16, "window_size": 4}
FOUR = {"num_heads": (2, 2, 2, 2), "depths": (1, 1, 1, 1)}
MODELS = {
    "Swin": ("swin_tiny_patch4_window7_224", {**SWIN, "strict_img_size": False}),
    "Swin V2": ("swinv2_tiny_window8_256", {**SWIN, "strict_img_size": False}),
    "Swin V2 CR": ("swinv2_cr_tiny_224", {**SWIN, "img_size": SIZE}),
    "DaViT": ("davit_tiny", {**FOUR, "embed_dims": (16, 16, 16, 16), "window_size": 3}),
    "Twins": ("twins_svt_small", {**FOUR, "embed_dims": (16, 16, 16, 16), "wss": (3, 3, 3, 3)}),
    "SAM": (
        "samvit_base_patch16",
        {
            "depth": 2,
            "embed_dim": 32,
            "num_heads": 2,
            "window_size": 3,
            "patch_size": 4,
            "img_size": SIZE,
            "global_attn_indexes": (1,),
        },
    ),
}


def built(name):
    torch.manual_seed(0)
    model, arguments = MODELS[name]
    return timm.create_model(model, pretrained=False, num_classes=0, **arguments).eval()


class Recorder(torch.nn.Module):
    """Stands in for attention and keeps what it was given."""

    def forward(self, x, **_):
        self.given = x
        return x


def places_of(model, layer):
    """Rows and columns of the image by window, int [windows, n, 2], -1 for padding.

    Of shifted windows the block itself moves a map of coordinates to its windows.
    """
    grid, side = layer.grid, layer.grid.extent
    y, x = np.meshgrid(np.arange(grid.rows), np.arange(grid.cols), indexing="ij")
    places = np.stack([y, x], 2)
    block = model.get_submodule(layer.name.rpartition(".")[0])
    if hasattr(block, "shift_size"):
        recorder, own = Recorder(), block.attn
        block.attn = recorder
        run = getattr(block, "_attn", None) or block._shifted_window_attn
        run(torch.from_numpy(places + 1.0).float().unsqueeze(0))
        block.attn = own
        return recorder.given.numpy().astype(int) - 1
    pad = [(0, -size % step) for size, step in zip((grid.rows, grid.cols), side, strict=True)]
    places = np.pad(places, (*pad, (0, 0)), constant_values=-1)
    down, across = places.shape[0] // side[0], places.shape[1] // side[1]
    places = places.reshape(down, side[0], across, side[1], 2).swapaxes(1, 2)
    return places.reshape(down * across, -1, 2)


def oracle(weights, places, patch):
    """Distance, entropy and KL of one image from the model's own probabilities, plain numpy."""
    there = places[..., 0] >= 0  # [windows, n]
    sums = [0.0, 0.0, 0.0]
    for p, seen, place in zip(weights.double().numpy(), there, places, strict=True):
        p = p[:, seen][:, :, seen]  # [heads, real queries, real keys]
        p = p / p.sum(-1, keepdims=True)
        log = np.log(np.where(p > 0, p, 1.0))
        gap = cdist(place[seen] * patch, place[seen] * patch)
        sums[0] += (p * gap).sum((1, 2))
        sums[1] -= (p * log).sum((1, 2))
        sums[2] += (p[:, None] * (log[:, None] - log[None, :])).sum((2, 3))
    return [x / there.sum() for x in sums]


def probabilities(model, x, names):
    seen = Softmaxes(model, names)
    with unfused(model), torch.no_grad(), seen.watching():
        model(x)
    return {name: found[0] for name, found in seen.found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_padded_windows_agree_with_the_model(name):
    model = built(name)
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), capture(model) as taps:
        model(x)
    own = probabilities(model, x, [layer.name for layer in taps.layers])
    padded = [item for item in taps.attention if item.grid.padding != (0, 0)]
    assert len(padded) >= 2 - (name == "SAM")
    for inputs in padded:
        grid = inputs.grid
        assert grid.rows <= math.ceil(SIZE[0] / grid.patch[0])
        places = places_of(model, inputs.layer)
        np.testing.assert_array_equal(grid.present(), places[..., 0] >= 0)
        weights = own[inputs.layer.name].unflatten(0, (2, -1))
        weights = weights.reshape(2, len(places), -1, *weights.shape[-2:])
        for found in (reference, blocked):
            stats = found.attention_stats(inputs, ALL)
            for image in range(2):
                truth = oracle(weights[image], places, grid.patch)
                ours = (stats.distance[image], stats.entropy[image], stats.kl[image])
                for value, wanted in zip(ours, truth, strict=True):
                    np.testing.assert_allclose(value.numpy(), wanted, rtol=3e-5, atol=3e-6)


def test_wrapped_neighbours_are_as_far_as_they_lie_on_the_image():
    """Five columns in windows of three, shifted by one and then padded: 1 2 3 | 4 0 -."""
    grid = TokenGrid(1, 5, (1, 10), window=(1, 3), shift=(0, 1), padding=(0, 1), late=True)
    np.testing.assert_array_equal(grid.present(), [[True] * 3, [True, True, False]])
    assert grid.gaps(slice(None))[1, 0, :2].tolist() == [0.0, 40.0]
    first = replace(grid, late=False)  # 1 2 3 | 4 - 0, and the mask parts 0 from 4
    np.testing.assert_array_equal(first.present(), [[True] * 3, [True, False, True]])
    assert first.visible()[1].tolist() == [
        [True, False, False],
        [True, False, False],
        [False, False, True],
    ]


GRIDS = {
    "plain": TokenGrid(4, 6, (16, 8), window=(3, 4), padding=(2, 2)),
    "late": TokenGrid(4, 6, (16, 8), window=(3, 4), shift=(1, 2), padding=(2, 2), late=True),
    "early": TokenGrid(4, 6, (16, 8), window=(3, 4), shift=(1, 2), padding=(2, 2)),
    "one window": TokenGrid(2, 3, (4, 4), window=(3, 4), padding=(1, 1)),
    "one side": TokenGrid(4, 8, (4, 4), window=(3, 4), shift=(1, 0), padding=(2, 0), late=True),
}


def shifted(grid, *, heads=3, spread=2.0, dtype=torch.float32):
    """Random attention in the windows of a grid, its shift masked."""
    windows = math.prod(grid.windows)
    inputs = doctor.example(grid, heads, 8, windows=windows, spread=spread, dtype=dtype)
    region = replace(grid, rows=grid.rows + grid.padding[0], cols=grid.cols + grid.padding[1])
    mask = torch.from_numpy(replace(region, padding=(0, 0), late=False).visible())
    bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf).unsqueeze(1)
    return replace(inputs, bias=bias) if any(grid.shift) else inputs


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("tile_bytes", [1, 3000, 1 << 30])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_blocked_agrees_with_float64(monkeypatch, grid, tile_bytes, step, spread):
    monkeypatch.setattr(blocked, "SMALL_BYTES", tile_bytes)
    monkeypatch.setattr(blocked, "TALL", 2)
    inputs = replace(shifted(grid, spread=spread), step=step)
    truth = reference.attention_stats(inputs, ALL)
    peak = inputs.scale * (inputs.q.double() @ inputs.k.double().mT).abs().max().item()
    assert doctor.deviation(blocked.attention_stats(inputs, ALL), truth) < 1e-5 * max(1, peak / 30)
    assert all(bool(x.isfinite().all()) for x in truth)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_padding_holds_changes_nothing(grid):
    """Whatever queries and keys padding has, also huge ones."""
    inputs = shifted(grid)
    absent = ~torch.from_numpy(grid.present()).repeat(inputs.images, 1)[:, None, :, None]
    other = replace(
        inputs, q=inputs.q.masked_fill(absent, 9.0), k=inputs.k.masked_fill(absent, 70.0)
    )
    for kernel in (reference, blocked):
        found = zip(
            kernel.attention_stats(inputs, ALL), kernel.attention_stats(other, ALL), strict=True
        )
        for a, b in found:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("kernel", [reference, blocked])
def test_flat_logits_give_the_uniform_values(grid, kernel):
    inputs = shifted(grid)
    bias = inputs.bias if any(grid.shift) else None
    flat = replace(inputs, q=torch.zeros_like(inputs.q), bias=bias)
    stats = kernel.attention_stats(flat, ALL)
    options = MetricOptions()
    assert stats.distance[0, 0].item() == pytest.approx(distance.uniform(grid, options), rel=1e-5)
    assert stats.entropy[0, 0].item() == pytest.approx(entropy.uniform(grid, options), rel=1e-5)
    assert float(stats.kl.abs().max()) < 1e-6
    assert distance.maximum(grid, options) >= distance.uniform(grid, options)


def kept_inputs(*, images=3, prefix=2, seed=0, spread=2.0):
    """Global attention of which each image kept ten patches of twenty."""
    grid = TokenGrid(4, 5, (16, 8), prefix=prefix, kept=10)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.zeros(images, 20, dtype=torch.bool)
    for row in kept:
        row[torch.randperm(20, generator=generator)[:10]] = True
    layer = LayerInfo(0, "test", 3, 8, grid)
    q, k = (spread * torch.randn(images, 3, 20 + prefix, 8, generator=generator) for _ in range(2))
    return AttentionInputs(layer, images, q, k, 8**-0.5, kept=kept)


@pytest.mark.parametrize("convention", ["renormalised", "included", "excluded"])
def test_dropped_patches_are_as_if_they_had_never_been(convention):
    """Each image alone, its kept tokens a strip: all but the distance must be the same."""
    inputs = kept_inputs()
    found = reference.attention_stats(inputs, ALL, prefix=convention)
    for image, kept in enumerate(inputs.kept):
        at = [0, 1, *(2 + torch.nonzero(kept).flatten()).tolist()]
        grid = TokenGrid(1, 10, (1, 1), prefix=2)
        alone = AttentionInputs(
            LayerInfo(0, "alone", 3, 8, grid),
            1,
            inputs.q[image : image + 1, :, at],
            inputs.k[image : image + 1, :, at],
            inputs.scale,
        )
        stats = reference.attention_stats(alone, ALL, prefix=convention)
        for name in ("entropy", "prefix_mass", "kl"):
            torch.testing.assert_close(getattr(found, name)[image], getattr(stats, name)[0])
        weights, _ = reference.patch_rows(reference.logits(alone, slice(0, 1)), grid, convention)
        place = np.stack(np.divmod(np.flatnonzero(kept.numpy()), 5), 1) * (16, 8)
        gap = cdist(place, place)
        by_hand = (weights[0, :, :, -10:].numpy() * gap).sum(-1).mean(-1)
        np.testing.assert_allclose(found.distance[image].numpy(), by_hand, rtol=1e-7)


@pytest.mark.parametrize("tile_bytes", [1, 3000, 1 << 30])
@pytest.mark.parametrize("convention", ["renormalised", "included"])
def test_dropped_patches_in_tiles(monkeypatch, tile_bytes, convention):
    monkeypatch.setattr(blocked, "SMALL_BYTES", tile_bytes)
    inputs = replace(kept_inputs(), step=2)
    truth = reference.attention_stats(inputs, ALL, prefix=convention)
    found = blocked.attention_stats(inputs, ALL, prefix=convention)
    assert doctor.deviation(found, truth) < 1e-5


def test_uniform_values_of_dropped_patches_are_expectations():
    """Over all choices of two patches of four, and with a prefix token."""
    grid = TokenGrid(2, 2, (1, 1), prefix=1, kept=2)
    pairs = [1.0, 1.0, 1.0, 1.0, math.sqrt(2), math.sqrt(2)]  # the six choices
    assert distance.uniform(grid, MetricOptions()) == pytest.approx(np.mean(pairs) / 2)
    assert entropy.uniform(grid, MetricOptions()) == pytest.approx(math.log(2))
    assert entropy.uniform(grid, MetricOptions(prefix="included")) == pytest.approx(math.log(3))
    assert prefix_mass.uniform(grid, MetricOptions()) == pytest.approx(1 / 3)


def test_an_image_without_a_query_that_counts_is_refused():
    inputs = kept_inputs()
    kept = torch.zeros_like(inputs.kept)
    kept[:, 3] = True
    with pytest.raises(GeometryError, match="none of every 20th query"):
        kernels.attention_stats(replace(inputs, kept=kept, step=20), ALL)
    with pytest.raises(GeometryError, match="nothing says which"):
        kernels.attention_stats(replace(inputs, kept=None), ALL)


def test_the_fused_kernel_leaves_absent_tokens_to_the_blocked_one():
    for inputs in (shifted(GRIDS["plain"]), kept_inputs()):
        assert "no token is absent" in fused.unsupported(inputs) or "fused" in fused.unsupported()
        assert kernels.choose(MetricOptions(), "auto", inputs) == "blocked"


def test_whole_rows_with_absent_tokens_are_refused():
    with pytest.raises(AttnprobeError, match="are absent"):
        list(measuring._weights(shifted(GRIDS["plain"]), MetricOptions()))


def framework(name):
    """A Swin of another library, that pads before it shifts."""
    torch.manual_seed(0)
    if name == "torchvision":
        from torchvision.models.swin_transformer import SwinTransformer

        return SwinTransformer([4, 4], 16, [2, 2], [1, 2], [3, 3], num_classes=2).eval()
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(image_size=64, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=3)
    return SwinModel(config).eval()


@pytest.mark.parametrize("name", ["torchvision", "transformers"])
def test_padding_before_the_shift(name):
    model = framework(name)
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), capture(model) as taps:
        model(x)
    assert any(any(layer.grid.shift) for layer in taps.layers)
    for inputs in taps.attention:
        grid = inputs.grid
        size, shift = (grid.rows, grid.cols), grid.shift
        assert grid.padding != (0, 0)
        assert not grid.late
        y, x_ = np.meshgrid(*map(np.arange, size), indexing="ij")
        pads = [(0, pad) for pad in grid.padding]
        places = np.pad(np.stack([y, x_], 2), (*pads, (0, 0)), constant_values=-1)
        places = np.roll(places, (-shift[0], -shift[1]), (0, 1))
        places = places.reshape(places.shape[0] // 3, 3, -1, 3, 2).swapaxes(1, 2)
        places = places.reshape(-1, 9, 2)
        np.testing.assert_array_equal(grid.present(), places[..., 0] >= 0)
        weights = reference.logits(inputs, slice(None)).softmax(-1)
        truth = oracle(weights, places, grid.patch)
        stats = blocked.attention_stats(inputs, ALL)
        for value, wanted in zip((stats.distance, stats.entropy, stats.kl), truth, strict=True):
            np.testing.assert_allclose(value[0].numpy(), wanted, rtol=3e-5, atol=3e-6)
        seen = (
            torch.from_numpy(grid.visible()).unsqueeze(1)
            | ~torch.from_numpy(grid.present())[:, None, None, :]
        )
        assert float(weights.masked_fill(seen, 0.0).max()) < 1e-6  # the mask is where it is thought


DOWNSTREAM = {
    "class attention alone": (
        "xcit_nano_12_p16_224",
        {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 64},
        (64, 64),
    ),
    "pooled keys": ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, (72, 100)),
    "windows spread out": (
        "maxvit_rmlp_pico_rw_256",
        {"img_size": 64, "embed_dim": (32, 32, 64, 64), "depths": (1, 1, 1, 1)},
        (64, 64),
    ),
    "padded windows": (MODELS["Swin V2 CR"][0], MODELS["Swin V2 CR"][1], SIZE),
}


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_every_geometry_goes_the_whole_way(name, tmp_path, command):
    """Measured, saved, read again, on a page, and compared."""
    architecture, arguments, size = DOWNSTREAM[name]
    model = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
    loaded = wrap(model.eval())
    loaded = replace(loaded, spec=replace(loaded.spec, input_size=(3, *size)))
    x = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(0))
    result = attnprobe.analyze(loaded, x, maps=1, resamples=100)
    places = [tmp_path / "one", tmp_path / "other"]
    result.save(places[0], texts={})
    replace(result, name="other").save(places[1], texts={})
    read = attnprobe.Result.load(places[0])
    grids = [geometry.grid_of(row) for row in read.layers.itertuples()]
    with torch.no_grad(), capture(model) as taps:
        model(x[:1])
    assert grids == [layer.grid and replace(layer.grid, names=()) for layer in taps.layers]
    assert ("distance" in read.tables) is any(grids)
    command("report", places[0])
    command("compare", *places, "-o", tmp_path / "both", "--permutations", "1000")
    page = (places[0] / "report.html").read_text()
    assert ("key grid" in page) is any(grid is not None and grid.keys is not None for grid in grids)


def test_a_row_of_an_earlier_release_is_a_plain_grid():
    grid = TokenGrid(4, 6, (16, 8), 0, (2, 3), (1, 1))
    row = geometry.columns_of(grid)
    old = ("rows", "cols", "patch_h", "patch_w", "prefix", "window_rows", "window_cols")
    old += ("shift_rows", "shift_cols")
    assert geometry.grid_of(SimpleNamespace(**{name: row[name] for name in old})) == grid
    full = replace(
        grid,
        keys=TokenGrid(2, 3, (32, 16), window=(1, 3), origin=(1.0, 0.0)),
        dilation=(2, 2),
        origin=(0.0, 3.0),
        padding=(0, 0),
        late=True,
        kept=7,
    )
    assert geometry.grid_of(SimpleNamespace(**geometry.columns_of(full))) == full


SIZES = {
    "vit_tiny_patch16_224": ((96, 128), {(6, 8)}),
    "vit_small_patch14_dinov2": ((98, 126), {(7, 9)}),
    "swin_tiny_patch4_window7_224": ((100, 140), {(25, 35), (13, 18), (7, 9), (4, 5)}),
    "davit_tiny": ((100, 140), {(25, 35), (13, 18), (7, 9), (4, 5)}),
}


@pytest.mark.parametrize("name", SIZES)
def test_any_input_size_and_images_of_every_size(name, tmp_path):
    size, grids = SIZES[name]
    for index, side in enumerate([(90, 60), (50, 120), (200, 200)]):
        Image.effect_noise(side, 60).convert("RGB").save(tmp_path / f"{index}.jpg")
    loaded = attnprobe.load(f"timm:{name}?pretrained=0", img_size=f"{size[0]}x{size[1]}")
    assert loaded.spec.input_size == (3, *size)
    result = attnprobe.analyze(loaded, tmp_path, ["distance", "entropy"], resamples=100, limit=2)
    assert set(zip(result.layers["rows"], result.layers["cols"], strict=True)) == grids
    fraction = result.tables["layer_means"]["fraction"]
    assert fraction.between(0, 1.2).all()


def test_a_size_that_would_misuse_positions_is_refused():
    """As many tokens as before, on another grid: nothing would fail by itself."""
    with pytest.raises(AttnprobeError, match="cannot change its input size"):
        attnprobe.load("timm:cait_xxs24_224?pretrained=0", img_size="112x448")
