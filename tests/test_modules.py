"""Modules of other libraries and of the user's own: captured as they are, or refused by name."""

import re
import warnings
from dataclasses import replace

import framework_families
import numpy as np
import pytest
import timm
import token_order
import torch
import transformers
from families import CLOSE, PAGE
from framework_families import MODELS
from test_capture import hooks
from torch import nn
from torch.nn import functional as F

import attnprobe
from attnprobe.attention.code import reaches
from attnprobe.attention.settling import settled
from attnprobe.capture import capture
from attnprobe.checkpoints.wrapping import wrap
from attnprobe.conformance import checks
from attnprobe.errors import AttnprobeError, CaptureError, GeometryError
from attnprobe.kernels import reference
from attnprobe.types import TokenGrid

PRESENT = framework_families.PRESENT
KNOWN = [name for name, model in PRESENT.items() if model.layers]
TWINS = [name for name in KNOWN if MODELS[name].twin]
REFUSED = [name for name, model in PRESENT.items() if not model.layers]
GRID = (4, 4, 1)  # of the plain modules below: 4 x 4 patches of 8 x 8 pixels after a class token


@pytest.mark.parametrize(
    ("name", "implementation"),
    [(name, how) for name in KNOWN for how in MODELS[name].implementations],
)
def test_captured_as_the_model_has_it(name, implementation):
    model = MODELS[name]
    found = framework_families.census(model, implementation)
    assert found.layers == found.compared == model.layers
    assert found.unplaced == 0
    assert found.worst <= CLOSE
    assert found.hidden <= CLOSE
    assert found.same
    assert found.beside == model.beside
    row = next(
        x for x in PAGE.read_text().splitlines() if x.startswith(f"| {name} | {model.library}")
    )
    assert f"{found.layers} of {model.layers}" in row
    bound = re.search(r"\| (0|1e-\d+) \|", row)
    assert bound
    assert found.worst <= 10 * float(bound[1])


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in TWINS])
def test_tokens_lie_where_their_pixels_are(name):
    module, images = framework_families.build(MODELS[name], sharp=1)
    assert token_order.misplaced(module, images[:1], slack=MODELS[name].slack) == []
    with torch.inference_mode(), capture(module) as taps:
        module(images)
    assert taps.layers[0].grid.prefix == MODELS[name].prefix
    assert len(taps.features) == MODELS[name].layers
    assert all(features.x.shape[0] == len(images) for features in taps.features)


@pytest.mark.parametrize("name", TWINS)
def test_tokens_lie_where_those_of_a_twin_do(name):
    module, images = framework_families.build(MODELS[name])
    grids = []
    for model in (module, timm.create_model(MODELS[name].twin).eval()):
        with torch.inference_mode(), capture(model) as taps:
            model(images[:1])
        grids.append([layer.grid for layer in taps.layers])
    assert grids[0] == grids[1]
    assert len(grids[0]) == MODELS[name].layers


def test_the_oracle_of_places_notices_a_wrong_grid():
    module, images = framework_families.build(MODELS["ViT"], sharp=1)
    for layer in module.layers:  # tokens in another order than the grid says
        layer.register_forward_pre_hook(lambda _, args: (args[0].flip(1), *args[1:]))
    assert len(token_order.misplaced(module, images[:1])) > 2


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    model = MODELS[name]
    module, images = framework_families.build(model)
    told = re.escape(model.refused)
    with pytest.raises(AttnprobeError, match=told), torch.no_grad(), capture(module):
        module(images)
    assert f"| {name} | {model.library} | {model.kind} | refused |" in PAGE.read_text()


def test_images_by_keyword():
    module, images = framework_families.build(MODELS["ViT"])
    with torch.no_grad(), capture(module) as taps:
        module(pixel_values=images)
    assert [layer.grid.rows for layer in taps.layers] == [4, 4]
    with pytest.raises(CaptureError, match="not given images"), torch.no_grad(), capture(module):
        module(pixel_values=images[0])


def test_masking_is_off_while_watched_and_on_again():
    module, images = framework_families.build(MODELS["MAE"])
    with torch.no_grad():
        assert module(images).last_hidden_state.shape[1] == 1 + 4
        with capture(module):
            watched = module(images)
        assert watched.last_hidden_state.shape[1] == 1 + 16
        assert watched.mask.sum() == 0
        assert module(images).last_hidden_state.shape[1] == 1 + 4


def test_images_and_text_together_are_refused():
    vision = {**framework_families._PLAIN}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 64, "max_position_embeddings": 17, "vocab_size": 99}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    clip = transformers.CLIPModel(config).eval()
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(0, 90, (2, 17))
    with pytest.raises(AttnprobeError, match=r"text_model|causal"), torch.no_grad(), capture(clip):
        clip(input_ids=tokens, pixel_values=images)
    with pytest.raises(CaptureError, match="vision_model"), torch.no_grad(), capture(clip):
        clip.get_image_features(pixel_values=images)
    with torch.no_grad(), capture(clip.vision_model) as taps:
        clip.get_image_features(pixel_values=images)
    assert len(taps.layers) == 2


class Block(nn.Module):
    """A block as people write them, by what it attends with."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.norm, self.mlp = nn.LayerNorm(32), nn.Linear(32, 32)
        if how.startswith("multihead"):
            self.attn = nn.MultiheadAttention(32, 4, batch_first=how != "multihead, tokens first")
        else:
            self.into, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):
        y = self.norm(x)
        y = self.multihead(y) if hasattr(self, "attn") else self.own(y)
        x = x + y
        return x + self.mlp(x)

    def multihead(self, y):
        if self.how == "multihead, tokens first":
            return self.attn(y, y, y, need_weights=False)[0]
        if self.how == "multihead, masked":
            mask = torch.zeros(17, 17, dtype=torch.bool)
            mask[:, 3] = True
            return self.attn(y, y, y, attn_mask=mask)[0]
        return self.attn(y, y, y)[0]

    def own(self, y):
        q, k, v = self.into(y).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        if self.how == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "function":
            y = attend(q, k, v)
        else:
            y = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) * 8**-0.5, dim=-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def attend(q, k, v):
    return ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


class Plain(nn.Module):
    """A vision transformer that follows no library's names."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.stem, self.first = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.randn(1, 1, 32))
        self.trunk = nn.ModuleList([Block(how) for _ in range(3)])
        self.classes = nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        x = x.transpose(0, 1) if self.how == "multihead, tokens first" else x
        for block in self.trunk:
            x = block(x)
        x = x.mean(0) if self.how == "multihead, tokens first" else x.mean(1)
        return self.classes(x).softmax(-1)


def memory_efficient_attention(q, k, v):
    """As that of xformers, whose kernels torch does not show."""
    weights = (q * 8**-0.5) @ k.transpose(-2, -1)
    weights = (weights - weights.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True) @ v


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that torch.jit is deprecated
    SCRIPTED = torch.jit.script(attend)
HOW = ("sdpa", "softmax", "function", "multihead", "multihead, tokens first", "multihead, masked")


def plain(how):
    torch.manual_seed(0)
    model = Plain(how).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model, torch.randn(5, 3, 32, 32)


def by_hand(block, x):
    """A block's probabilities in float64, from its weights and the tokens that came in."""
    x = block.norm(x).double()
    own = getattr(block, "into", None)
    weight, bias = (
        (own.weight, own.bias) if own else (block.attn.in_proj_weight, block.attn.in_proj_bias)
    )
    q, k, _ = (
        (x @ weight.double().T + bias.double()).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
    )
    logits = q @ k.mT / 8**0.5
    if block.how == "multihead, masked":
        logits[..., 3] = -torch.inf
    return logits.softmax(-1)


@pytest.mark.parametrize("how", HOW)
def test_plain_modules_are_captured(how):
    model, images = plain(how)
    inputs, before = {}, hooks(model)
    for number, block in enumerate(model.trunk):
        block.register_forward_pre_hook(lambda _, args, n=number: inputs.update({n: args[0]}))
    outputs = []
    model.trunk[0].register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad(), capture(model, grid=GRID) as taps:
        watched = model(images)
        first = taps.attention
    for number, seen in enumerate(first):
        tokens = inputs[number]
        tokens = tokens.transpose(0, 1) if how == "multihead, tokens first" else tokens
        ours = reference.logits(seen, slice(None)).softmax(-1)
        torch.testing.assert_close(ours, by_hand(model.trunk[number], tokens), rtol=0, atol=1e-6)
        assert seen.layer.grid == TokenGrid(4, 4, (8.0, 8.0), prefix=1)
        assert seen.layer.heads == 4
    tokens = outputs[0].transpose(0, 1) if how == "multihead, tokens first" else outputs[0]
    assert torch.equal(taps.features[0].x, tokens)
    with torch.no_grad(), settled(model):
        assert torch.equal(model(images), watched)
    assert hooks(model) == before + 4
    assert token_order.misplaced(model, images[:1], grid=GRID) == []


def test_plain_modules_are_analyzed():
    model, images = plain("softmax")
    result = attnprobe.analyze(model, images, grid=GRID, resamples=100)
    assert len(result.tables["distance"]) == len(result.tables["entropy"]) == 3 * 4
    rows = []
    model.trunk[2].register_forward_pre_hook(lambda _, args: rows.append(args[0]))
    with torch.no_grad():
        model(images)
        weights = by_hand(model.trunk[2], rows[0])[:, :, 1:, 1:]
    weights = weights / weights.sum(-1, keepdim=True)
    place = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(16, 2) * 8.0
    gaps = np.linalg.norm(place[:, None] - place[None], axis=-1)
    truth = (weights.numpy() * gaps).sum(-1).mean((0, 2))
    table = result.tables["distance"].query("layer == 2")
    np.testing.assert_allclose(table["value"], truth, rtol=1e-5)
    assert [check.name for check in checks(given(model)) if not check.passed] == []


def given(model):
    loaded = replace(wrap(model), grid=GRID)
    return replace(loaded, spec=replace(loaded.spec, input_size=(3, 32, 32)))


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (None, "give grid="),
        ((4, 4), "17 queries and 17 keys in 1 windows"),
        ((4, 4, 2), "has 18 and 18"),
        ((3, 4, 1), "do not divide"),
        ([4, 4, 1], "no token grid"),
        ((4.0, 4, 1), "no token grid"),
        ((4, 4, 1, 1), "no token grid"),
        ((True, 17), "no token grid"),
        ("4 x 4", "no token grid"),
        (TokenGrid(4, 4, (8, 8), prefix=1, window=(2, 2)), "5 and 5 in 4"),
        (TokenGrid(4, 4, (16, 16), prefix=1), "are not an image of 32 x 32"),
        (TokenGrid(4, 4, (2, 2), prefix=1), "are not an image of 32 x 32"),
        (lambda name: (2, 8) if name == "trunk.1" else GRID, r"trunk\.1 \(Block\) has 17"),
    ],
)
def test_a_grid_that_does_not_explain_the_tokens_is_refused(grid, told):
    model, images = plain("sdpa")
    with torch.no_grad(), pytest.raises(GeometryError, match=told), capture(model, grid=grid):
        model(images)


def test_a_layer_may_have_no_place():
    model, images = plain("sdpa")
    result = attnprobe.analyze(
        model, images, grid=lambda name: None if name == "trunk.1" else GRID, resamples=100
    )
    assert sorted(set(result.tables["distance"]["layer"])) == [0, 2]
    assert sorted(set(result.tables["entropy"]["layer"])) == [0, 1, 2]


def test_a_stated_grid_is_taken_over_a_known_one():
    module, images = framework_families.build(MODELS["ViT"])
    with torch.no_grad(), capture(module, grid=(2, 8, 1)) as taps:
        module(images)
    assert {layer.grid for layer in taps.layers} == {TokenGrid(2, 8, (16.0, 4.0), prefix=1)}


def test_tokens_first_with_as_many_images_is_refused():
    model, images = plain("multihead, tokens first")
    many = images[:1].expand(17, -1, -1, -1)
    with torch.no_grad(), pytest.raises(CaptureError, match="17 images of 17 tokens"):
        attnprobe.analyze(model, many, ["cka"], grid=GRID, batch_size=17)


def test_torchs_own_encoder_is_captured():
    """Its fused path computes whole layers out of sight."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 8, 8)
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x):
            return self.body(self.stem(x).flatten(2).transpose(1, 2))

    model, images = Encoder().eval(), torch.randn(2, 3, 32, 32)
    assert torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), capture(model, grid=(4, 4)) as taps:
        watched = model(images)
    assert [layer.heads for layer in taps.layers] == [2, 2]
    assert torch.equal(taps.features[1].x, watched)
    assert torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        torch.testing.assert_close(model(images), watched, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "call", "told"),
    [
        ({"add_bias_kv": True}, {}, "bias_k"),
        ({"add_zero_attn": True}, {}, "add_zero_attn"),
        ({}, {"attn_mask": torch.full((16, 16), -torch.inf).triu(1)}, "causal"),
        ({}, {"attn_mask": torch.ones(16, 16, dtype=torch.bool).triu(1)}, "causal"),
        (
            {},
            {"attn_mask": torch.ones(16, 16, dtype=torch.bool).triu(1), "is_causal": True},
            "causal",
        ),
    ],
)
def test_multihead_attention_that_is_not_of_patches_is_refused(arguments, call, told):
    model = Single(arguments, call)
    with torch.no_grad(), pytest.raises(CaptureError, match=told), capture(model, grid=(4, 4)):
        model(torch.randn(2, 3, 32, 32))


class Single(nn.Module):
    """One layer of torch's attention, alone."""

    def __init__(self, arguments, call):
        super().__init__()
        self.call, self.stem = call, nn.Conv2d(3, 8, 8, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True, **arguments)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.attn(x, x[..., : self.attn.kdim], x[..., : self.attn.vdim], **self.call)[0]


@pytest.mark.parametrize(
    "call",
    [
        {"key_padding_mask": torch.arange(16).expand(2, 16) > 9},
        {"attn_mask": torch.randn(4, 16, 16)},
        {"attn_mask": torch.randn(16, 16), "key_padding_mask": torch.randn(2, 16)},
    ],
    ids=["padding", "one mask a head", "both"],
)
@pytest.mark.parametrize("arguments", [{}, {"kdim": 5, "vdim": 3}, {"bias": False}])
def test_masks_and_projections_of_multihead_attention(arguments, call):
    torch.manual_seed(0)
    model, images = Single(arguments, call).eval().double(), torch.randn(2, 3, 32, 32).double()
    call = {k: x.double() if x.is_floating_point() else x for k, x in call.items()}
    model.call = call | {"need_weights": False}
    with torch.no_grad(), capture(model, grid=(4, 4)) as taps:
        model(images)
    model.call = call | {"average_attn_weights": False}
    told = []
    model.attn.register_forward_hook(lambda _, __, out: told.append(out[1]))
    with torch.no_grad():
        model(images)
    ours = reference.logits(taps.attention[0], slice(None)).softmax(-1)
    torch.testing.assert_close(ours, told[0], rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_and_compiled_modules_are_refused_by_name():
    model, _ = plain("sdpa")
    model.trunk[1] = torch.jit.trace(nn.Linear(32, 32), torch.randn(2, 17, 32))
    with pytest.raises(CaptureError, match=r"trunk\.1 .*scripted"), capture(model):
        pass
    with pytest.raises(CaptureError, match=r"the model .*compiled"), capture(torch.compile(model)):
        pass


@pytest.mark.parametrize("name", ["", "trunk", "trunk.1"])
def test_attention_compiled_in_place_is_refused_by_name(name):
    model, images = plain("sdpa")
    model.get_submodule(name).compile(backend="eager")
    named = re.escape(name) or "the model"
    with pytest.raises(CaptureError, match=rf"{named} .*compiled"), capture(model, grid=GRID):
        pass
    model, _ = plain("sdpa")
    model.trunk[1].forward = torch.compile(model.trunk[1].forward, backend="eager")
    with pytest.raises(CaptureError, match=r"trunk\.1 .*compiled"), capture(model, grid=GRID):
        pass
    model, _ = plain("sdpa")
    model.trunk[1].mlp.compile(backend="eager")  # what lies beside attention may be
    with torch.no_grad(), capture(model, grid=GRID) as taps:
        model(images)
    assert len(taps.layers) == 3


def test_a_model_on_several_devices_is_refused():
    model, images = plain("sdpa")
    shared = nn.DataParallel(model)
    with torch.no_grad(), capture(shared, grid=GRID) as taps:
        shared(images)
    assert [layer.name for layer in taps.layers][:1] == ["module.trunk.0"]
    shared.device_ids = [0, 1]
    with pytest.raises(CaptureError, match="spread over 2 devices"), capture(shared):
        pass


class Timm(nn.Module):
    """A model of timm as part of another."""

    def __init__(self, model):
        super().__init__()
        self.net = model

    def forward(self, x):
        return self.net(x)


SMALL = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
INSIDE = {
    "test_vit": {"img_size": 64},
    "vit_small_patch16_dinov3": {"depth": 1, "img_size": 64},
    "swin_tiny_patch4_window7_224": SMALL | {"embed_dim": 16, "img_size": 64},
    "davit_tiny": SMALL | {"embed_dims": (16, 16, 32, 32)},
    "hiera_tiny_224": {"embed_dim": 8, "stages": (1, 1, 1, 1), "img_size": (64, 64)},
    "mobilevit_xxs": {},
    "pvt_v2_b0": {},
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_model_of_timm_inside_another_is_read_as_it_is_alone(name):
    torch.manual_seed(0)
    model, images = timm.create_model(name, **INSIDE[name]).eval(), torch.randn(2, 3, 64, 64)
    outer = Timm(model).eval()
    with torch.no_grad(), capture(model) as alone:
        output = model(images)
    with torch.no_grad(), capture(outer) as inside:
        assert torch.equal(outer(images), output)
    assert alone.layers
    assert [replace(x, name=f"net.{x.name}") for x in alone.layers] == inside.layers
    for one, other in zip(alone.features, inside.features, strict=True):
        assert torch.equal(one.x, other.x)


def test_stages_of_timm_that_were_taken_out_are_placed_as_before():
    name, images = "swin_tiny_patch4_window7_224", torch.randn(2, 3, 224, 224)
    grids = []
    for features_only in (False, True):
        model = timm.create_model(name, features_only=features_only, **SMALL, embed_dim=16)
        with torch.no_grad(), capture(model.eval()) as taps:
            model(images)
        grids.append([(layer.grid, layer.stage) for layer in taps.layers])
    assert grids[0] == grids[1]
    assert [stage for _, stage in grids[0]] == [0, 1, 2, 3]


def test_blocks_of_timm_in_a_model_that_states_no_stride_are_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 8, 8)
            block = timm.models.swin_transformer.SwinTransformerBlock
            self.block = block(16, (4, 4), num_heads=2, window_size=2)

        def forward(self, x):
            return self.block(self.stem(x).permute(0, 2, 3, 1))

    model, images = Own().eval(), torch.randn(2, 3, 32, 32)
    told = pytest.raises(GeometryError, match="states no stride")
    with torch.no_grad(), told, capture(model):
        model(images)


def test_features_are_those_of_their_block_where_the_next_adds_in_place():
    class InPlace(Block):
        def forward(self, x):
            x += self.own(self.norm(x))
            x += self.mlp(x)
            return x

    model, images = plain("sdpa")
    model.trunk = nn.ModuleList([InPlace("sdpa") for _ in range(3)]).eval()
    outputs = []
    for block in model.trunk:
        block.register_forward_hook(lambda _, __, out: outputs.append(out.clone()))
    with torch.no_grad(), capture(model, grid=GRID) as taps:
        model(images)
    assert all(map(torch.equal, [features.x for features in taps.features], outputs))


def test_a_softmax_over_its_own_logits_is_refused():
    class Over(Block):
        def own(self, y):
            q, k, v = self.into(y).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
            logits = q @ k.mT
            y = torch.softmax(logits, -1, out=logits) @ v
            return self.out(y.transpose(1, 2).flatten(2))

    model, images = plain("sdpa")
    model.trunk[1] = Over("softmax").eval()
    with (
        torch.no_grad(),
        pytest.raises(CaptureError, match="Over writes"),
        capture(model, grid=GRID),
    ):
        model(images)


class Foreign(Block):
    """Attends by a kernel of another package."""

    def own(self, y):
        q, k, v = self.into(y).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        return self.out(memory_efficient_attention(q, k, v).transpose(1, 2).flatten(2))


class Scripted(Block):
    """Attends in scripted code."""

    def own(self, y):
        q, k, v = self.into(y).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        return self.out(SCRIPTED(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", [Foreign, Scripted])
def test_attention_that_torch_does_not_show_is_refused_by_name(kind):
    model, images = plain("sdpa")
    model.trunk[1] = kind("sdpa").eval()
    told = pytest.raises(CaptureError, match=r"1 of 3 .* did not report: trunk\.1")
    with torch.no_grad(), told, capture(model, grid=GRID):
        model(images)


def test_attention_outside_every_module_that_was_found_is_refused():
    class Late(nn.Module):
        """The last attention is in no module of its own."""

        def __init__(self):
            super().__init__()
            self.plain = Plain("sdpa")

        def forward(self, x):
            self.plain(x)
            x = torch.randn(2, 17, 32)
            return (x @ x.mT).softmax(-1) @ x

    with torch.no_grad(), pytest.raises(CaptureError, match="outside"):
        attnprobe.analyze(Late(), torch.randn(2, 3, 32, 32), ["entropy"], grid=GRID)


def test_heads_folded_into_the_batch_need_their_number():
    class Folded(Single):
        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.folded(x)

    class Attention(nn.Module):
        def forward(self, x):
            x = x.unflatten(-1, (2, 4)).transpose(1, 2).flatten(0, 1)
            return (x @ x.mT).softmax(-1) @ x

    model, images = Folded({}, {}), torch.randn(3, 3, 32, 32)
    del model.attn
    model.folded = Attention()
    with torch.no_grad(), pytest.raises(GeometryError, match="num_heads"):
        attnprobe.analyze(model, images, ["entropy"], grid=(4, 4))
    model.folded.num_heads = 2
    assert len(attnprobe.analyze(model, images, ["entropy"], grid=(4, 4)).tables["entropy"]) == 2


def test_what_a_forward_pass_reaches():
    assert reaches(Block, [F.scaled_dot_product_attention])
    assert reaches(Block, [torch.softmax])
    assert not reaches(Unreached, [torch.softmax])
    assert not reaches(nn.Linear, [torch.softmax])
    assert reaches(Inherited, [torch.softmax])


class Inherited(Block):
    """Falls back on the class before it, as DINOv2 does without xformers."""

    def forward(self, x):
        return super().forward(x)


class Unreached(nn.Module):
    def forward(self, x):
        return x

    def probabilities(self, x):
        return torch.softmax(x, -1)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)

    def forward(self, x):
        return self.fc(x).softmax(-1)


def test_a_softmax_over_classes_is_no_attention():
    model, images = plain("sdpa")
    model.classes = nn.Sequential(nn.Linear(32, 5), Head())
    with torch.no_grad(), capture(model, grid=GRID) as taps:
        model(images)
        model(images[:2])
    assert [layer.name for layer in taps.layers] == ["trunk.0", "trunk.1", "trunk.2"]


def test_as_many_images_as_heads_are_told_apart_or_refused():
    model, images = plain("softmax")
    with (
        torch.no_grad(),
        pytest.raises(CaptureError, match="4 images and 4 heads"),
        capture(model, grid=GRID),
    ):
        model(images[:4])
    with torch.no_grad(), capture(model, grid=GRID) as taps:
        model(images)
        model(images[:4])
    assert len(taps.attention) == 6


def test_heads_before_images_are_refused():
    class HeadsFirst(Block):
        def own(self, y):
            q, k, v = self.into(y).unflatten(-1, (3, 4, 8)).permute(2, 3, 0, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v)
            return self.out(y.permute(1, 2, 0, 3).flatten(2))

    model, images = plain("sdpa")
    model.trunk[1] = HeadsFirst("sdpa").eval()
    for count in (1, 2, 3, 4, 5):  # of 4 heads
        for grid in (GRID, lambda _: None):
            told = pytest.raises(AttnprobeError, match=r"trunk\.[01]")
            with torch.no_grad(), told, capture(model, grid=grid):
                model(images[:count])
