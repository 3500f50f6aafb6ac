"""Masked images: dropped or replaced patches, against the models' own unfused passes."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from scipy.spatial.distance import cdist

import attnprobe
from attnprobe import masking
from attnprobe.analysis import AnalysisConfig
from attnprobe.attention.dropping import Kept, restored
from attnprobe.attention.reader import RawAttention
from attnprobe.checkpoints import masked
from attnprobe.conformance import Softmaxes, unfused
from attnprobe.errors import AttnprobeError, CaptureError
from attnprobe.images.decoding import normalise
from attnprobe.types import MASKED

METRICS = ("distance", "entropy", "head_kl", "prefix_mass")
FEW = {"resamples": 100, "maps": 0}


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    """A pre-training file as MAE's code writes it: its mask token is the decoder's."""
    torch.manual_seed(3)
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=64, depth=2, num_classes=0
    )
    extra = {
        "mask_token": torch.ones(1, 1, 192),  # as wide as the encoder, to be mistaken for its own
        "decoder_embed.weight": torch.ones(8, 192),
        "decoder_blocks.0.norm1.weight": torch.ones(8),
    }
    path = tmp_path_factory.mktemp("mae") / "mae.pth"
    torch.save({"model": {**model.state_dict(), **extra}}, path)
    return path


@pytest.fixture(scope="module")
def simmim(tmp_path_factory):
    """A pre-training file of Swin as SimMIM's code writes it."""
    torch.manual_seed(4)
    arguments = {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32, "window_size": 4}
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", pretrained=False, img_size=64, num_classes=0, **arguments
    )
    held = {f"encoder.{name}": x for name, x in model.state_dict().items()}
    held |= {
        f"encoder.{name}": x for name, x in model.named_buffers() if name.endswith("attn_mask")
    }
    held["encoder.mask_token"] = torch.randn(1, 1, 32)
    held |= {"decoder.0.weight": torch.ones(192, 64, 1, 1), "decoder.0.bias": torch.ones(192)}
    path = tmp_path_factory.mktemp("simmim") / "simmim.pth"
    torch.save({"model": held}, path)
    return path


def batch_of(photos, spec):
    source = attnprobe.datasets.open_set(photos, spec=spec)
    (batch,) = source.batches(64)
    return batch.ids, normalise(batch.pixels, batch.spec)


def softmaxes(model, run):
    """Return the probabilities of every attention layer, [images x windows, heads, n, n]."""
    names = [name for name, part in model.named_modules() if name.endswith("attn")]
    seen = Softmaxes(model, names)
    with unfused(model), torch.no_grad(), seen.watching():
        run()
    return [seen.found[name][0].double() for name in names]


def by_hand(weights, places):
    """Distance, entropy, KL and prefix mass of one image, [heads ...], from plain numpy."""
    whole = weights.numpy()[:, 1:]
    p = whole[..., 1:] / whole[..., 1:].sum(-1, keepdims=True)
    gap, log = cdist(places, places), np.log(p)
    return {
        "distance": (p * gap).sum(-1).mean(-1),
        "entropy": -(p * log).sum(-1).mean(-1),
        "head_kl": (p[:, None] * (log[:, None] - log[None])).sum(-1).mean(-1),
        "prefix_mass": whole[..., 0].mean(-1),
    }


def samples(result, metric, image, layer):
    frame = result.samples[metric]
    return frame[(frame["image"] == image) & (frame["layer"] == layer)]["value"].to_numpy()


def test_dropped_patches_are_measured_as_the_encoder_saw_them(mae, photos):
    loaded = attnprobe.load(mae)
    assert loaded.masked == masked.Masked("drop")
    result = attnprobe.analyze(loaded, photos, METRICS, mask_ratio=0.75, mask_seed=5, **FEW)
    hidden = masking.hiding(loaded, AnalysisConfig(mask_ratio=0.75, mask_seed=5))
    ids, x = batch_of(photos, loaded.spec)
    model = loaded.module
    for image, name in enumerate(ids):
        kept = np.flatnonzero(~hidden.mask(name).numpy().ravel())
        assert len(kept) == 4

        def run(image=image, kept=kept):
            tokens = model._pos_embed(model.patch_embed(x[image : image + 1]))
            tokens = tokens[:, [0, *(kept + 1).tolist()]]
            for block in model.blocks:
                tokens = block(tokens)

        places = 16.0 * np.stack(np.divmod(kept, 4), 1)
        for layer, weights in enumerate(softmaxes(model, run)):
            for metric, truth in by_hand(weights[0], places).items():
                found = samples(result, metric, image, layer)
                np.testing.assert_allclose(found, truth.ravel(), rtol=3e-4, atol=2e-6)
    assert set(result.layers["kept"]) == {4}
    expected = np.log(4)
    assert result.layers["entropy_uniform"].to_numpy() == pytest.approx(expected)


def test_masks_follow_the_image_and_not_the_batch(mae, photos):
    loaded = attnprobe.load(mae)
    how = {"metrics": ("distance", "cka"), "mask_ratio": 0.5, **FEW}
    one, many = (attnprobe.analyze(loaded, photos, batch_size=n, **how) for n in (1, 9))
    for metric in how["metrics"]:
        a, b = (result.tables[metric]["value"].to_numpy() for result in (one, many))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    other = attnprobe.analyze(loaded, photos, mask_seed=1, **how)
    assert not np.allclose(one.tables["distance"]["value"], other.tables["distance"]["value"])


def test_a_mask_is_that_of_the_seed_and_the_id(mae):
    loaded = attnprobe.load(mae)
    hidden = masking.hiding(loaded, AnalysisConfig(mask_ratio=0.6))
    masks = {name: hidden.mask(name) for name in ("a", "b", "c")}
    assert all(int(mask.sum()) == 16 - 6 for mask in masks.values())
    assert not torch.equal(masks["a"], masks["b"])
    assert torch.equal(masks["a"], hidden.mask("a"))
    seed = int.from_bytes(hashlib.sha256(b"0\0a").digest()[:8]) >> 1
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    assert set(order[:10].tolist()) == set(masks["a"].flatten().nonzero().flatten().tolist())


def test_every_patch_is_hidden_as_often():
    layout = masking.masks.Cells(4, 4, 12, (1, 1))
    hidden = masking.Hiding(torch.nn.Identity(), "drop", 0, layout, "")
    share = torch.stack([hidden.mask(str(n)) for n in range(2000)]).float().mean(0)
    assert float((share - 0.75).abs().max()) < 0.05


def test_replaced_patches_are_measured_as_the_encoder_saw_them(simmim, photos):
    loaded = attnprobe.load(simmim)
    assert (loaded.masked.how, loaded.masked.cell) == ("replace", 32)
    metrics = ("distance", "entropy", "head_kl")
    result = attnprobe.analyze(loaded, photos, metrics, mask_ratio=0.6, **FEW)
    hidden = masking.hiding(loaded, AnalysisConfig(mask_ratio=0.6))
    ids, x = batch_of(photos, loaded.spec)
    model, token = loaded.module, loaded.masked.token
    mask = torch.stack([hidden.mask(name) for name in ids])
    assert mask.flatten(1).sum(1).tolist() == [192] * len(ids)  # three of four squares of 8 x 8

    def run():
        tokens = model.patch_embed(x)
        model.layers(torch.where(mask.unsqueeze(-1), token, tokens))

    for layer, weights in enumerate(softmaxes(model, run)):
        logs = torch.where(weights > 0, weights, 1.0).log()
        entropy = -(weights * logs).sum(-1).unflatten(0, (len(ids), -1)).mean((1, 3))
        for image in range(len(ids)):
            found = samples(result, "entropy", image, layer)
            np.testing.assert_allclose(found, entropy[image].numpy(), rtol=1e-4)
    whole = attnprobe.analyze(loaded, photos, metrics, **FEW)
    assert not np.allclose(whole.tables["entropy"]["value"], result.tables["entropy"]["value"])
    again = attnprobe.analyze(loaded, photos, metrics, mask_ratio=0.0, **FEW)
    assert np.array_equal(whole.tables["entropy"]["value"], again.tables["entropy"]["value"])


def test_a_token_is_put_before_positions(tmp_path):
    """BEiT with absolute positions: the token replaces the embedding, and gets its position."""
    model = timm.create_model(
        "beit_base_patch16_224", img_size=64, depth=1, embed_dim=64, num_heads=2,
        use_abs_pos_emb=True, num_classes=0,
    ).eval()  # fmt: skip
    loaded = attnprobe.checkpoints.wrapping.wrap(model)
    token = torch.randn(1, 1, 64)
    loaded = replace(loaded, masked=masked.Masked("replace", token))
    hidden = masking.hiding(loaded, AnalysisConfig(mask_ratio=0.5))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), hidden.watching():
        hidden.begin(["a", "b"], torch.device("cpu"))
        found = model.forward_features(x)
    with torch.no_grad():
        mask = torch.stack([hidden.mask(name).flatten() for name in ("a", "b")]).unsqueeze(-1)
        tokens = torch.where(mask, token, model.patch_embed(x))
        tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], 1) + model.pos_embed
        wanted = model.norm(model.blocks[0](tokens))
        torch.testing.assert_close(found, wanted)
        assert not torch.allclose(model.forward_features(x), wanted)  # and the hook is gone


REFUSALS = {
    "no mask token": ({"mask_how": "replace"}, "without a mask token"),
    "all of an image": ({"mask_ratio": 1.0}, "hides no part"),
    "no such way": ({"mask_how": "blur"}, "unknown way"),
    "flat tokens": ({"cka_tokens": "flat"}, "flat tokens in CKA"),
    "mean attention": ({"average": "attention"}, "attention averaged"),
    "cells to drop": ({"mask_patch": 32}, "cells of --mask-patch"),
    "nothing left": ({"mask_ratio": 0.99}, "leaves 0 of 16"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(mae, name):
    changes, told = REFUSALS[name]
    loaded = attnprobe.load(mae)
    with pytest.raises(AttnprobeError, match=told):
        attnprobe.analyze(loaded, torch.randn(8, 3, 64, 64), **{"mask_ratio": 0.5, **changes})


def test_what_a_model_cannot_do_is_refused(simmim, checkpoint):
    swin, plain = attnprobe.load(simmim), attnprobe.load(checkpoint)
    for loaded, changes, told in (
        (swin, {"mask_how": "drop"}, "cannot drop patches"),
        (swin, {"mask_patch": 24}, "mask_patch 24 does not fit"),
        (swin, {"graphs": True}, "CUDA graphs replay one mask"),
        (plain, {}, "does not say how"),
    ):
        config = AnalysisConfig(mask_ratio=0.5, **changes)
        with pytest.raises(AttnprobeError, match=told):
            masking.hiding(loaded, config)
    config = AnalysisConfig(mask_ratio=0.5, mask_how="drop")
    assert masking.hiding(plain, config).how == "drop"


def test_tokens_that_are_not_those_kept_are_refused():
    raw = RawAttention(torch.zeros(2, 1, 5, 4), torch.zeros(2, 1, 5, 4), 1.0, None)
    kept = Kept(torch.tensor([[0, 2], [1, 3]]), 4)
    assert restored(raw, kept, "here").q.shape == (2, 1, 7, 4)
    with pytest.raises(CaptureError, match="here has a bias"):
        restored(raw._replace(bias=torch.zeros(1, 1, 5, 5)), kept, "here")
    with pytest.raises(CaptureError, match="of 4 windows"):
        restored(raw._replace(q=torch.zeros(4, 1, 5, 4)), kept, "here")


def test_masked_and_whole_images_on_one_page(mae, photos, tmp_path, command):
    how = ("-i", photos, "--resamples", "100", "--maps", "2", "-m", "distance,entropy")
    command("analyze", mae, *how, "-o", tmp_path / "whole")
    command("analyze", mae, *how, "--mask-ratio", "0.75", "-o", tmp_path / "masked")
    result = attnprobe.Result.load(tmp_path / "masked")
    assert result.name == "mae, 75% masked"
    assert result.provenance.transform["mask"].startswith("0.75 of the patches dropped")
    assert MASKED in result.tables["distance"]["definition"][0]
    assert "dropped before the first block" in (tmp_path / "masked/report.html").read_text()
    both = (tmp_path / "whole", tmp_path / "masked")
    told = command("compare", *both, "-o", tmp_path / "both", "--permutations", "1000")
    text = " ".join((told.out + told.err).split())
    assert "shown different parts of the images" in text
    assert (tmp_path / "both/report.html").is_file()
    command("report", tmp_path / "masked")


def test_runs_of_earlier_releases_are_of_whole_images():
    from attnprobe.results.runs import Kept as Run

    run = Run("01", {"config": {"seed": 0}})
    whole = {"seed": 0, "mask_ratio": 0.0, "mask_seed": 0, "mask_how": "auto", "mask_patch": 0}
    assert run.differs(whole) == ""
    assert run.differs({**whole, "mask_ratio": 0.5}) == "mask ratio"
