"""The same numbers on a CUDA device, with real sizes."""

import numpy as np
import pytest
import timm
import torch
from training_runs import config, npz, tensors

import attnprobe
from attnprobe import doctor
from attnprobe.training.engine import train

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


@pytest.mark.parametrize("objective", ["simmim", "mae", "mocov3", "supervised"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_resumes_where_it_was_killed(tmp_path, objective, precision):
    data = npz(tmp_path / "train.npz")
    values = {"device": "cuda", "precision": precision, "deterministic": True, "save_every": 2}
    plan = config(objective, data, **values)
    train(plan, tmp_path / "whole")

    def stop(update):
        if update.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "cut", listener=stop)
    train(plan, tmp_path / "cut", resume=True)  # the gradient scaler of fp16 included
    one, two = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_agrees_with_the_processor(tmp_path):
    data = npz(tmp_path / "train.npz")
    for device in ("cpu", "cuda"):
        values = {"device": device, "opt": "sgd", "lr": 0.05, "epochs": 1}
        train(config("simmim", data, **values), tmp_path / device)
    one, two = tensors(tmp_path / "cpu"), tensors(tmp_path / "cuda")
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
