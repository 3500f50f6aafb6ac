"""A probe sees what `analyze` sees, and the training that it looks into never notices."""

import json
import random
from functools import partial

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import attnprobe
from attnprobe.errors import AttnprobeError, CaptureError, ImagesError, OutputError
from attnprobe.probing import AttentionProbe, suggested_interval
from attnprobe.probing.undisturbed import unwrapped
from attnprobe.results import Result
from attnprobe.settings import AnalysisConfig

SIDE, CLASSES = 32, 4
IMAGES = torch.randn(10, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def backbone(**options):
    torch.manual_seed(0)
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    options = {"drop_path_rate": 0.3, "proj_drop_rate": 0.2, **options}
    return timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, num_classes=CLASSES, **sizes, **options
    )


class Learner(nn.Module):
    """A backbone with parts that a careless look would change."""

    def __init__(self):
        super().__init__()
        self.encoder = backbone(norm_layer=nn.LayerNorm)
        self.encoder.norm_pre = nn.Sequential(self.encoder.norm_pre, Restless())
        self.head = nn.Dropout(0.2)

    def forward(self, x):
        return self.head(self.encoder(x))


class Restless(nn.Module):
    """Counts passes in any mode, as centres of teachers and running statistics do."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(24)
        self.norm.eval()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("last", torch.zeros(24))

    def forward(self, x):
        self.passes += 1
        self.last = x.detach().mean((0, 1))
        random.random(), np.random.rand()  # noqa: NPY002
        return self.norm(x.transpose(1, 2)).transpose(1, 2) + 0 * torch.randn(1)


def batches(count, seed=1):
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.randn(6, 3, SIDE, SIDE, generator=draw)
        yield x, torch.randint(0, CLASSES, (6,), generator=draw)


def trained(model, probe=None, *, steps=5, autocast="", first=None):
    """Train a model, looking at it before the first pass and after every one."""
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step, (x, y) in enumerate(batches(steps), start=1):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(autocast)):
            if first and step == 1:
                first()
            loss = F.cross_entropy(model(x), y)
            if probe:
                probe(step)
        loss.backward()
        optimiser.step()
    after = torch.rand(3), torch.tensor(random.random()), torch.tensor(np.random.rand())  # noqa: NPY002
    return {**model.state_dict(), **dict(zip("abc", after, strict=True))}


@pytest.fixture
def probing(tmp_path):
    """Make a probe that keeps its results in the test's folder."""
    return partial(AttentionProbe, images=IMAGES, out=tmp_path / "probe", resamples=100)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("autocast", ["", "around", "around and inside"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_probed_training_ends_in_the_same_bits(probing, autocast, checkpointing):
    plain, looked = Learner().train(), Learner().train()
    for model in (plain, looked):
        model.encoder.set_grad_checkpointing(checkpointing)
        if "inside" in autocast:  # as accelerate prepares models
            model.encoder.forward = torch.autocast("cpu", torch.bfloat16)(model.encoder.forward)
    probe = probing(looked, every=1, encoder="encoder")
    ours = trained(looked, probe, autocast=autocast, first=lambda: probe(0))
    assert len(probe.results()) == 6
    assert same(ours, trained(plain, autocast=autocast))
    assert not same(ours, Learner().state_dict())


def test_the_comparison_of_trainings_can_fail(probing):
    plain, looked = Learner().train(), Learner().train()
    careless = trained(looked, first=lambda: looked(IMAGES))
    assert not same(careless, trained(plain))


def state(model):
    parts = [
        (part.training, dict(vars(part)["_forward_hooks"]), len(vars(part)["_forward_pre_hooks"]))
        for part in model.modules()
    ]
    parameters = [(p.requires_grad, p.grad, p._version, p.data_ptr()) for p in model.parameters()]
    buffers = [(b, b._version) for b in model.buffers()]
    return parts, parameters, [id(b) for b, _ in buffers], model.encoder.grad_checkpointing


def test_flags_gradients_hooks_and_buffers_are_as_they_were(probing):
    model = Learner().train()
    model.encoder.blocks[0].eval()
    model.encoder.patch_embed.requires_grad_(requires_grad=False)
    model.encoder.set_grad_checkpointing(True)
    F.cross_entropy(model(IMAGES), torch.zeros(10, dtype=torch.long)).backward()
    before = state(model)
    probing(model, encoder=lambda whole: whole.encoder)(1, force=True)
    after = state(model)
    assert after[0] == before[0]
    assert after[2:] == before[2:]
    for ours, theirs in zip(after[1], before[1], strict=True):
        assert ours[0] == theirs[0]
        assert ours[1] is theirs[1]
        assert ours[2:] == theirs[2:]


def test_the_model_is_looked_at_still(probing):
    model, seen = Learner().train(), set()

    def look(part, *_):
        switches = part.training, part.grad_checkpointing, torch.is_grad_enabled()
        seen.add((*switches, torch.is_autocast_enabled("cpu")))

    model.encoder.set_grad_checkpointing(True)
    model.encoder.register_forward_pre_hook(look)
    with torch.autocast("cpu", torch.bfloat16):
        probing(model, encoder="encoder")(0)
    assert seen == {(False, False, False, False)}


def test_a_probe_that_fails_leaves_no_trace_either(probing, tmp_path):
    model = Learner().train()
    with torch.no_grad():
        model.encoder.blocks[1].attn.qkv.weight.fill_(float("nan"))
    before, drawn = state(model), torch.get_rng_state()
    with pytest.raises(AttnprobeError, match="not a finite number"):
        probing(model, encoder="encoder")(1, force=True)
    assert state(model)[0] == before[0]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not (tmp_path / "probe").exists()


def test_a_probe_measures_what_analyze_measures(probing):
    model = backbone().train()
    model.head_drop.p = 0.5
    result = probing(model)(7, 0.5, force=True)
    config = AnalysisConfig(resamples=100, limit=64)
    whole = attnprobe.analyze(model, IMAGES, ["distance", "entropy", "head_kl"], config=config)
    assert set(result.tables) == set(whole.tables)
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(result.tables[name], table, rtol=1e-5)
    assert result.provenance.images_sha256 == whole.provenance.images_sha256
    assert result.provenance.precision == "float32"
    assert result.model["step"] == 7
    assert result.model["epoch"] == 0.5
    assert result.model["architecture"] == "vit_tiny_patch16_224"


def test_files_are_read_once_and_preprocessed_as_the_model_asks(photos, tmp_path, monkeypatch):
    probe = AttentionProbe(backbone(), photos, out=tmp_path / "probe", limit=8, resamples=100)
    monkeypatch.setattr("attnprobe.images.decoding.decode", None)
    first, second = probe(0), probe(3, force=True)
    assert first.images["id"].tolist() == second.images["id"].tolist()
    assert first.provenance.transform["resize"].startswith("36") or first.provenance.transform
    assert first.model["input_size"] == [3, SIDE, SIDE]


def test_measures_when_it_is_time_and_remembers(probing, tmp_path):
    probe = probing(backbone(), every=4)
    assert probe.summary == {}
    assert probe.history().empty
    done = [step for step in range(11) if probe(step)]
    assert done == [0, 4, 8]
    assert probe(10, force=True).name == "vit_tiny_patch16_224, step 10"
    assert probe(10, force=True) is None  # measured already
    folders = sorted(path.name for path in (tmp_path / "probe").iterdir())
    assert folders == [f"step-{step:08d}" for step in (0, 4, 8, 10)]
    history = probe.history()
    assert list(history) == ["step", "metric", "layer", "value", "low", "high"]
    assert len(history) == 4 * 3 * 2
    last = history[(history["step"] == 10) & (history["metric"] == "entropy")]
    assert probe.summary["entropy/layer01"] == last["value"].iloc[1]
    assert set(probe.summary) == {
        f"{metric}/layer0{n}" for metric in ("distance", "entropy", "head_kl") for n in (0, 1)
    }


@pytest.mark.parametrize("epochs", [(None, None, None), (0, 0, 1), (0, 0.5, 1)])
def test_a_track_puts_probes_in_order(probing, epochs):
    probe = probing(backbone())
    for step, epoch in zip((0, 9, 100), epochs, strict=True):
        probe(step, epoch, force=True)
    track = attnprobe.track(probe.results()[::-1], resamples=100)
    told = {(0, 0.5, 1): ("epoch", (0, 0.5, 1))}.get(epochs, ("step", (0, 9, 100)))
    assert (track.word, track.steps) == told
    assert len(track.tables["changes"]) == 3 * 2


def test_a_resumed_training_keeps_the_past_and_replaces_the_future(probing, tmp_path):
    probe = probing(backbone(), every=10)
    for step in (0, 10, 20, 30):
        probe(step)
    kept = (tmp_path / "probe" / "step-00000010" / "manifest.json").stat().st_mtime_ns
    again = probing(backbone(), every=10)
    assert again(10) is None
    assert again.history()["step"].unique().tolist() == [0, 10]
    assert sorted(path.name[-2:] for path in (tmp_path / "probe").iterdir()) == ["00", "10"]
    assert again(20) is not None
    assert (tmp_path / "probe" / "step-00000010" / "manifest.json").stat().st_mtime_ns == kept
    again(15)  # the same loop, taken up again from further back
    assert again.history()["step"].unique().tolist() == [0, 10]
    anew = probing(backbone(), every=10)
    assert anew(0) is not None
    assert anew.history()["step"].unique().tolist() == [0]


def test_a_damaged_probe_is_measured_again(probing, tmp_path):
    probing(backbone())(5, force=True)
    (tmp_path / "probe" / "step-00000005" / "tables" / "entropy.parquet").write_bytes(b"half")
    assert probing(backbone())(5, force=True) is not None
    assert Result.load(tmp_path / "probe" / "step-00000005").model["step"] == 5


def test_probes_of_other_images_or_options_are_refused(probing):
    probing(backbone())(5, force=True)
    probing(backbone(), batch_size=3)
    for changes in ({"images": IMAGES + 1}, {"metrics": ["entropy"]}, {"seed": 1}):
        with pytest.raises(OutputError, match="other images or with other options"):
            probing(backbone(), **changes)


def test_probes_from_before_there_was_an_option_go_on(probing, tmp_path):
    probing(backbone())(5, force=True)
    path = tmp_path / "probe" / "step-00000005" / "manifest.json"
    held = json.loads(path.read_text())
    assert held["config"].pop("mask_ratio") == 0
    path.write_text(json.dumps(held))
    assert probing(backbone()).history()["step"].unique().tolist() == [5]
    held["config"]["mask_ratio"] = 0.5
    path.write_text(json.dumps(held))
    with pytest.raises(OutputError, match="with other options"):
        probing(backbone())


def test_what_cannot_be_measured_is_refused_before_training(probing):
    with pytest.raises(CaptureError, match="no attention layers"):
        probing(nn.Conv2d(3, 4, 3))
    with pytest.raises(AttnprobeError, match="unknown metric"):
        probing(backbone(), metrics=["beauty"])
    with pytest.raises(AttnprobeError, match="every 0"):
        probing(backbone(), every=0)
    with pytest.raises(ImagesError):
        probing(backbone(), images=IMAGES[:0])


@pytest.mark.parametrize(
    "shell", [nn.DataParallel, torch.compile, lambda m: nn.DataParallel(torch.compile(m))]
)
def test_shells_are_looked_through(probing, shell):
    model = backbone()
    assert unwrapped(shell(model)) is model
    assert probing(shell(model))(0).model["parameters"] == sum(
        p.numel() for p in model.parameters()
    )


def test_a_model_compiled_in_place_is_looked_at_uncompiled(probing):
    def refusing(*_):
        raise NotImplementedError

    model = backbone()
    model.compile(backend=refusing)
    before = model._compiled_call_impl
    assert probing(model)(0) is not None
    assert model._compiled_call_impl is before is not None


@pytest.mark.parametrize("everywhere", [False, True])
def test_only_the_main_process_measures_unless_told(probing, monkeypatch, everywhere):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    probe = probing(backbone(), everywhere=everywhere)
    assert (probe(0) is not None) == everywhere


def test_the_suggested_interval_grows_with_the_probe_and_keeps_to_epochs():
    assert suggested_interval(64, 64) == 50
    assert suggested_interval(64, 8) == 400
    assert suggested_interval(64, 256, steps_per_epoch=5005) == 5005
    assert suggested_interval(1, 4096) == 1


def dataset():
    return [(x, y) for xs, ys in batches(4) for x, y in zip(xs, ys, strict=True)]


@pytest.mark.filterwarnings("ignore")
def test_lightning_calls_it_by_optimiser_step(probing, tmp_path):
    library = pytest.importorskip("pytorch_lightning")

    class Task(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = backbone()

        def training_step(self, batch, _):
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    task = Task()
    probe = probing(task, encoder="model", every=2)
    trainer = library.Trainer(
        default_root_dir=tmp_path,
        callbacks=[probe.lightning()],
        max_epochs=2,
        accumulate_grad_batches=4,
        accelerator="cpu",
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False),
        enable_model_summary=False,
    )
    trainer.fit(task, torch.utils.data.DataLoader(dataset(), batch_size=2))
    told = [(result.model["step"], result.model["epoch"]) for result in probe.results()]
    assert told == [(0, 0), (2, pytest.approx(8 / 12)), (4, pytest.approx(16 / 12)), (6, 2)]


@pytest.mark.filterwarnings("ignore")
def test_transformers_calls_it_by_update(probing, tmp_path):
    library = pytest.importorskip("transformers")

    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = backbone()

        def forward(self, x, labels):
            return {"loss": F.cross_entropy(self.model(x), labels)}

    task = Task()
    probe = probing(task, encoder="model", every=2)
    arguments = library.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=1,
        per_device_train_batch_size=8,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    rows = [{"x": x, "labels": y} for x, y in dataset()]
    trainer = library.Trainer(task, arguments, train_dataset=rows, callbacks=[probe.transformers()])
    trainer.train()
    told = [(result.model["step"], result.model["epoch"]) for result in probe.results()]
    assert told == [(0, 0), (2, pytest.approx(2 / 3)), (3, 1)]


@pytest.mark.filterwarnings("ignore")
def test_a_plain_loop_under_accelerate_calls_it(probing):
    library = pytest.importorskip("accelerate")
    library.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = library.Accelerator(cpu=True, mixed_precision="bf16")
    model, loader = backbone(), torch.utils.data.DataLoader(dataset(), batch_size=8)
    model, optimiser, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.1), loader
    )
    probe = probing(model, every=2)
    probe(0)
    for step, (x, y) in enumerate(loader, start=1):
        accelerator.backward(F.cross_entropy(model(x), y))
        optimiser.step()
        optimiser.zero_grad()
        probe(step, force=step == len(loader))
    assert [result.model["step"] for result in probe.results()] == [0, 2, 3]
    assert {result.provenance.precision for result in probe.results()} == {"bfloat16"}


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_an_absent_library_is_named(probing, monkeypatch, library):
    monkeypatch.setattr("attnprobe.probing.adapters._imported", lambda _: None)
    with pytest.raises(AttnprobeError, match="is not installed") as caught:
        getattr(probing(backbone()), library)()
    assert caught.value.remedy == f"pip install {library}"
