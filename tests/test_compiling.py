"""Compiled models are measured as they are, and left as they were."""

import numpy as np
import pytest
import timm
import torch

import attnprobe
from attnprobe import compiling
from attnprobe.compiling import compiled, parts_beside_attention
from attnprobe.errors import AttnprobeError
from tests.test_analysis import small_model, values

MODELS = {
    "vit": {"model_name": "test_vit"},
    "registers": {
        "model_name": "vit_small_patch14_reg4_dinov2",
        "img_size": 56,
        "depth": 2,
        "embed_dim": 64,
        "num_heads": 2,
    },
    "swin": {
        "model_name": "swin_tiny_patch4_window7_224",
        "embed_dim": 24,
        "depths": (2, 2),
        "num_heads": (1, 2),
    },
    "beit": {"model_name": "beit_base_patch16_224", "embed_dim": 48, "depth": 2, "num_heads": 3},
}


@pytest.fixture
def traced(monkeypatch):
    """Compile without a compiler, and count what was traced."""
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    def quick(model, *, wanted=True):
        return compiled(model, wanted=wanted, backend=backend)

    monkeypatch.setattr("attnprobe.analysis.compiled", quick)
    torch._dynamo.reset()
    yield seen
    torch._dynamo.reset()


@pytest.mark.parametrize("name", MODELS)
def test_capture_stays_right(traced, name):
    torch.manual_seed(0)
    model = timm.create_model(**MODELS[name], pretrained=False, num_classes=0).eval()
    size = model.patch_embed.img_size
    images = torch.randn(6, 3, *size)
    plain = attnprobe.analyze(model, images)
    assert not traced
    again = attnprobe.analyze(model, images, compile=True)
    assert traced
    for table in ("distance", "entropy", "head_kl", "cka"):
        np.testing.assert_allclose(values(again, table), values(plain, table), atol=1e-5)
    assert all(part._compiled_call_impl is None for part in model.modules())
    assert again.config["compile"] is True


def test_attention_is_left_alone():
    model = small_model()
    names = {id(module): name for name, module in model.named_modules()}
    found = {names[id(part)] for part in parts_beside_attention(model)}
    assert {"blocks.0.mlp", "blocks.0.norm1", "blocks.5.norm2"} <= found
    assert not any("attn" in name for name in found)


def test_a_machine_without_a_compiler_is_told(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def backend(graph, inputs):
        raise RuntimeError("g++ is not here")

    model = small_model()
    images = torch.randn(6, 3, 160, 160)
    real = compiling.compiled
    monkeypatch.setattr(
        "attnprobe.analysis.compiled", lambda m, wanted: real(m, wanted=wanted, backend=backend)
    )
    with pytest.raises(AttnprobeError, match=r"cannot be compiled here.*\n.*leave --compile out"):
        attnprobe.analyze(model, images, ["entropy"], compile=True)
    assert issubclass(BackendCompilerFailed, Exception)
    assert len(attnprobe.analyze(model, images, ["entropy"]).images) == 6
