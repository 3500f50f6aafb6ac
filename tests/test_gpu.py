"""The same numbers on a CUDA device, with real sizes."""

import numpy as np
import pytest
import timm
import torch

import attnprobe
from attnprobe import doctor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_doctor_is_content_with_the_device():
    assert [check for check in doctor.checks("cuda") if not check.passed] == []


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_tables_agree_with_the_processor(name, precision):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    images = torch.randn(8, 3, 224, 224)
    there = attnprobe.analyze(model, images, device="cuda", precision=precision)
    here = attnprobe.analyze(model, images, device="cpu")
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    for table in ("distance", "entropy"):
        found, truth = (result.tables[table]["value"] for result in (there, here))
        np.testing.assert_allclose(found, truth, rtol=tolerance)
    assert there.provenance.device != "cpu"
