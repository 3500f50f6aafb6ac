"""What a study costs can be changed: a file of one's own, fewer methods, more seeds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from training_runs import npz

from attnprobe.errors import AttnprobeError, OutputError
from attnprobe.reproduction import budgets, estimate, growing, reproducing
from attnprobe.reproduction.steps import steps

EXAMPLES = Path(__file__).parent.parent / "examples" / "budgets"
OWN = """
base = "smoke"
images = 8
[epochs]
supervised = 5
[training.model]
patch_size = 8
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return npz(folder / "train.npz", 64), npz(folder / "val.npz", 32, seed=1)


def planned(images, out, budget):
    return reproducing.planned(*map(str, images), out, budget)


def test_a_file_says_only_what_is_different(tmp_path, images):
    (tmp_path / "mine.toml").write_text(OWN)
    own, smoke = budgets.load(str(tmp_path / "mine.toml")), budgets.load("smoke")
    assert (own.name, own.images) == ("mine", 8)
    assert own.epochs == {**smoke.epochs, "supervised": 5}
    assert own.training["model"]["patch_size"] == 8
    same = replace(own, name="smoke", images=16, epochs=smoke.epochs, training=smoke.training)
    assert same == replace(smoke, model=own.model, cost=own.cost)
    assert "changed" in own.model
    assert planned(images, tmp_path / "out", own).budget == own


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("images = 8", "says base = None"),
        ('base = "huge"', "says base = 'huge'"),
        ('base = "smoke"\nepoch = 3', "the key 'epoch', but keys are: base, "),
        ('base = "smoke"\nname = "x"', "the key 'name'"),
        ('base = "smoke"\nimages = "8"', "images cannot be '8'"),
        ('base = "smoke"\nprobes = 0', "probes cannot be 0"),
        ('base = "smoke"\nseeds = 3', "seeds cannot be 3"),
        ('base = "smoke"\n[seeds]\nsupervised = -1', "supervised cannot be -1"),
        ('base = "smoke"\n[epochs]\nsupervised = 0', "how many epochs supervised"),
        ('base = "smoke"\n[seeds]\ndino = 1', "the method 'dino'"),
        ('base = "smoke"\ndropped = [0, "1"]', "dropped cannot be '1'"),
        ('base = "smoke"\ndropped = [0, 0, 1]', "each number once"),
        ('base = "smoke"\ndropped = [2]', "0 among them"),
        ('base = "smoke"\n[training]\nloop = 3', "training.loop cannot be 3"),
        ('base = "smoke"\n[training]\nmodel = "vit"', "training.model cannot be 'vit'"),
        ('base = "smoke"\n[training]\nbatch_size = 8', "training.batch_size cannot be 8"),
        ('base = "smoke"\n[training.loop]\nepochs = 8', r"set by the study; use \[epochs\]"),
        ('base = "smoke"\n[finetuning.model]\ninit = "x"', "finetuning.model.init is set by"),
        ('base = "smoke"\n[methods]\nsimmim = 3', r"\[methods.simmim\] cannot be 3"),
        ('base = "smoke"\n[methods.simmin.simmim]\nx = 3', "names 'simmin'"),
        ('base = "smoke"\n[finetunings]\nsimmim = 3', r"\[finetunings.simmim\] cannot be 3"),
        ('base = "smoke"\n[workers]\nmae = "a"', "workers.mae cannot be 'a'"),
        ('base = "smoke"\ndrops = ["dino"]', "drops blocks of 'dino'"),
        ("base = ", "cannot read the budget"),
        ("base = \"smoke\"\nx = " + "[" * 5000, "cannot read the budget"),
    ],
)  # fmt: skip
def test_what_is_no_budget_is_refused(tmp_path, text, said):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(AttnprobeError, match=said):
        budgets.load(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_those_of_the_examples_are_studies(tmp_path, images, path):
    budget = budgets.load(str(path))
    runs = planned(images, tmp_path / "out", budget).runs()
    assert ("supervised", 0) in runs
    assert {seed for _, seed in runs} == {0}
    assert budget.model.startswith("ViT-Mini/8")
    assert budget.training["model"]["patch_size"] == 8


def test_a_budget_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AttnprobeError, match=r"absent\.toml"):
        budgets.load(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[methods.mae.mae]\nmask_ration = 0.5", "mask_ration"),
        ("[training.loop]\nbatch_size = 0", "batch_size"),
        ('[training.loop]\nbatch_size = "a"', "batch_size"),
        ('[training.model.model_args]\ndepth = "a"', "depth cannot be 'a'"),
        ("[finetuning.optimizer]\nlayer_decy = 0.5", "layer_decy"),
        ("[finetunings.mae.optimizer]\nlr = -1.0", "lr"),
        ("[training]\nwatch = {eval_limit = 0}", "eval_limit"),
        ("[methods.simmim.model]\npatch_size = 8", "simmim is fine-tuned as another model"),
        ("[finetunings.mae.model.model_args]\ndepth = 1", "mae is fine-tuned as another"),
        ("dropped = [0, 9]", "9 of 3 blocks cannot be dropped"),
        ("[seeds]\nsupervised = 0\nsimmim = 0\nmae = 0\nmocov3 = 0", "no training"),
    ],
)
def test_what_training_would_refuse_is_refused_before_any(tmp_path, images, text, said):
    (tmp_path / "mine.toml").write_text(f'base = "smoke"\n{text}')
    budget = budgets.load(str(tmp_path / "mine.toml"))
    with pytest.raises(AttnprobeError, match=said):
        planned(images, tmp_path / "out", budget)
    assert not (tmp_path / "out").exists()


def test_fewer_methods_and_other_numbers(tmp_path, images):
    smoke = budgets.load("smoke")
    assert budgets.narrowed(smoke) == smoke
    some = budgets.narrowed(smoke, methods=["mae", "simmim"], seeds=3, epochs=7)
    assert some.drops == ["simmim"]
    plan = planned(images, tmp_path, some)
    assert plan.runs() == [(method, seed) for seed in range(3) for method in ("simmim", "mae")]
    assert {some.epochs[method] for method, _ in plan.runs()} == {7}
    with pytest.raises(AttnprobeError, match="choose of: supervised, simmim, mae, mocov3"):
        budgets.narrowed(smoke, methods=["dino"])


def test_one_method_alone_is_compared_with_nothing(tmp_path, images):
    plan = planned(images, tmp_path, budgets.narrowed(budgets.load("smoke"), methods=["mae"]))
    assert "comparison" not in [step.name for step in steps(plan, workers=0)]


def test_a_study_grows_and_is_compared_again(tmp_path, images):
    smoke = budgets.load("smoke")

    def asked(**changes):
        return planned(images, tmp_path / "out", budgets.narrowed(smoke, **changes))

    pair = ["simmim", "supervised"]
    reproducing.claim(asked(methods=pair, seeds=1), resume=False)
    path = tmp_path / "out" / "comparison" / "manifest.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"kind": "comparison", "finished": True, "runs": ["a", "b"]}))
    done = [step.done for step in steps(asked(methods=pair), workers=0) if step.runs]
    assert done == [True]

    reproducing.claim(asked(methods=[*pair, "mae"], seeds=2), resume=True)
    grown = [step.done for step in steps(asked(methods=[*pair, "mae"]), workers=0) if step.runs]
    assert grown == [False], "it lacks one of three"
    with pytest.raises(OutputError, match="seeds of supervised: 2, now 1"):
        reproducing.claim(asked(methods=[*pair, "mae"], seeds=1), resume=True)
    with pytest.raises(OutputError, match=r"epochs\.mae: 1, now 9"):
        reproducing.claim(asked(seeds=2, epochs=9), resume=True)
    fewer = replace(asked(methods=[*pair, "mae"], seeds=2).budget, drops=["simmim"])
    less = planned(images, tmp_path / "out", fewer)
    with pytest.raises(OutputError, match=r"drops: \['supervised', 'simmim'\]"):
        reproducing.claim(less, resume=True)


def test_going_on_adds_to_what_a_study_has():
    smoke = budgets.load("smoke")
    before = {"seeds": {"simmim": 1, "mae": 0}, "epochs": {"simmim": 5, "mae": 1}}

    def asked(**changes):
        told = {"methods": (), "seeds": 0, "epochs": 0} | changes
        return growing.joined(smoke, before, **told)

    nothing = {"supervised": 0, "mae": 0, "mocov3": 0}
    as_it_is = asked()
    assert as_it_is.seeds == nothing | {"simmim": 1}
    assert as_it_is.epochs == smoke.epochs | {"simmim": 5}
    assert as_it_is.drops == ["simmim"]
    assert asked(seeds=3).seeds == nothing | {"simmim": 3}
    assert asked(methods=["supervised"]).seeds == nothing | {"simmim": 1, "supervised": 2}
    assert asked(methods=["supervised"]).drops == ["supervised", "simmim"]
    assert asked(methods=["mae"], seeds=2).seeds == nothing | {"simmim": 1, "mae": 2}
    assert asked(epochs=7).epochs["simmim"] == 7  # which the folder then refuses
    added = asked(methods=["mae"], epochs=7).epochs
    assert (added["simmim"], added["mae"]) == (5, 7)
    with pytest.raises(AttnprobeError, match="no method 'dino'"):
        asked(methods=["dino"])


def test_what_concerns_methods_that_were_no_part_is_no_change():
    before = {"seeds": {"mae": 1}, "epochs": {"mae": 3}, "methods": {"mae": {"mae": {"dim": 8}}}}
    more = {"simmim": {"simmim": {"dim": 9}}}
    assert not growing.change(before, before | {"methods": before["methods"] | more})
    other = {"mae": {"mae": {"dim": 9}}}
    assert growing.change(before, before | {"methods": other}) == "methods.mae.mae.dim: 8, now 9"
    pooled = {"mae": {"model": {"model_args": {"global_pool": "avg"}}}}
    told = growing.change(before, before | {"finetunings": pooled})
    assert told == "finetunings.mae.model.model_args.global_pool: 'nothing', now 'avg'"


def test_the_estimate_counts_every_run_and_what_is_dropped(tmp_path, images, monkeypatch):
    threads = []

    def an_update(study, method):
        threads.append(estimate.torch.get_num_threads())
        return {"supervised": 1.0, "simmim": 2.0}[method]

    monkeypatch.setattr(estimate, "_an_update", an_update)
    some = budgets.narrowed(budgets.load("smoke"), methods=["simmim"], seeds=3)
    plan = planned(images, tmp_path, some)
    before = estimate.torch.get_num_threads()
    each = estimate.seconds(plan, threads=2)
    assert set(threads) == {2}
    assert estimate.torch.get_num_threads() == before
    scored = (64 + 32) / 32 / 3  # images, of batches of 32, forward only
    epochs, batches = 2, 2
    assert each["simmim"] == pytest.approx(estimate.EXTRA + epochs * batches * 2 + scored)
    assert each["fine-tuning"] == pytest.approx(estimate.EXTRA + batches + scored)
    whole = 3 * each["simmim"] + 3 * (1 + 2 / 3) * each["fine-tuning"] + 4 * estimate.EXTRA
    assert estimate.total(plan, each) == pytest.approx(whole)


def test_the_command_takes_them(tmp_path, images, command):
    (tmp_path / "mine.toml").write_text(OWN)
    given = ("-d", images[0], "--val", images[1], "-o", tmp_path / "out", "--dry-run")
    own = ("--budget", tmp_path / "mine.toml", "--methods", "supervised,mae", "--seeds", "2")
    printed = command("reproduce", *given, *own)
    assert "mae: about" in printed.err
    assert "simmim" not in printed.err
    assert "dino" in command("reproduce", *given, "--methods", "dino", status=1).err


def test_the_command_goes_on_with_the_study_as_it_is(tmp_path, images, command):
    out = tmp_path / "out"
    some = budgets.narrowed(budgets.load("smoke"), methods=["mae"], epochs=4)
    reproducing.claim(planned(images, out, some), resume=False)
    given = ("-d", images[0], "--val", images[1], "--budget", "smoke", "-o", out, "--resume")
    printed = command("reproduce", *given, "--dry-run")
    assert "mae: about" in printed.err
    assert "mocov3" not in printed.err
    more = command("reproduce", *given, "--dry-run", "--methods", "mocov3")
    assert "mae: about" in more.err
    assert "mocov3: about" in more.err
    assert "epochs.mae: 4, now 5" in command("reproduce", *given, "--epochs", "5", status=1).err
    (out / "study.toml").write_text("{")
    assert "damaged" in command("reproduce", *given, status=1).err
