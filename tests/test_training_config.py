"""Configurations: layers over layers, refused values, the file accepted back; recipes."""

import tomllib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import AttnprobeError
from attnprobe.options import option
from attnprobe.training import recipes
from attnprobe.training.config import changed, configure, differences, read
from attnprobe.training.sections import FREE, SECTIONS


@dataclass(frozen=True)
class Own:
    ratio: float = option(0.6, "Share.", low=0.0)
    kind: str = option("a", "Kind.", choices=("a", "b"))


def test_later_layers_win_and_the_rest_are_defaults():
    config = configure(
        "simmim", Own, {"loop": {"epochs": 3, "seed": 1}}, {"epochs": 5}, {"ratio": 1}
    )
    assert (config.loop.epochs, config.loop.seed, config.options.ratio) == (5, 1, 1.0)
    assert config.loop.batch_size == 128


def test_tables_are_merged_key_by_key():
    layers = ({"model": {"model_args": {"a": 1, "b": 2}}}, {"model_args": {"b": 3}})
    assert configure("simmim", Own, *layers).model.model_args == {"a": 1, "b": 3}


@given(
    epochs=st.integers(1, 10_000),
    betas=st.lists(st.floats(0, 1), max_size=3),
    name=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20),
    extra=st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("abc", max_size=3),
        max_size=3,
    ),
)
def test_what_is_written_reads_back_the_same(epochs, betas, name, extra):
    config = configure(
        "simmim", Own, {"epochs": epochs, "betas": betas, "name": name, "model_args": extra}
    )
    assert configure("simmim", Own, tomllib.loads(config.toml())) == config


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"loop": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"lop": {"epochs": 3}}, "did you mean 'loop'"),
        ({"epochs": 2.5}, "must be an integer"),
        ({"epochs": True}, "must be an integer"),
        ({"epochs": 0}, "below 1"),
        ({"lr": "1e-3"}, "must be a number"),
        ({"lr": float("nan")}, "no finite number"),
        ({"betas": [0.9, "x"]}, "must be a list"),
        ({"trackers": "wandb"}, "must be a list"),
        ({"model_args": 3}, "must be a table"),
        ({"precision": "fp8"}, "choose one of: auto, fp32, bf16, fp16"),
        ({"kind": "c"}, "choose one of: a, b"),
        ({"download": "yes"}, "must be true or false"),
        ({"objective": "mae"}, "the configuration is for 'mae'"),
        ({"simmim": {"rato": 1.0}}, "did you mean 'ratio'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(table, cause):
    with pytest.raises(AttnprobeError, match=cause):
        configure("simmim", Own, table)


def test_differences_name_both_values():
    config = configure("simmim", Own)
    other = changed(config, "loop", epochs=7)
    assert differences(config, other) == ["epochs 100 -> 7"]


def test_option_names_are_unique_over_sections():
    names = [name for kind in SECTIONS.values() for name in kind.__dataclass_fields__]
    assert len(names) == len(set(names))
    assert set(names) >= FREE


@pytest.mark.parametrize("text", ["a = ", "\x00", "[[["])
def test_a_broken_file_is_refused(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(AttnprobeError, match=r"cannot read .*config\.toml"):
        read(path)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is_and_configures(name):
    from attnprobe import objectives

    recipe = recipes.load(name)
    assert min(len(recipe.reproduces), len(recipe.expected), len(recipe.cost)) > 10
    config = configure(
        recipe.objective, objectives.load(recipe.objective).config, recipe.tables, recipe=name
    )
    assert config.recipe == name
    import timm

    assert timm.is_model(config.model.model)


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(AttnprobeError, match="simmim_vit_base_800ep"):
        recipes.load("simmim")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "simmim_vit_base_800ep",
            {"lr": 1e-4, "lr_batch": 512, "warmup_lr": 5e-7, "weight_decay": 0.05}
            | {"clip_grad": 5.0, "sched": "multistep", "decay_epochs": [700.0], "epochs": 800}
            | {"warmup_epochs": 10.0, "drop_path": 0.1, "betas": [0.9, 0.999], "eps": 1e-8},
        ),
        (
            "simmim_swin_base_100ep",
            {"lr": 2e-4, "warmup_lr": 1e-6, "min_lr": 1e-5, "sched": "cosine", "img_size": 192},
        ),
        (
            "finetune_simmim_vit_base_100ep",
            {"lr": 1.25e-3, "layer_decay": 0.65, "min_lr": 2.5e-7, "warmup_epochs": 20.0},
        ),
        ("mae_vit_base_1600ep", {"lr": 1.5e-4, "lr_batch": 256, "betas": [0.9, 0.95]}),
        ("mocov3_vit_base_300ep", {"lr": 1.5e-4, "weight_decay": 0.1, "momentum": 0.99}),
    ],
)
def test_recipes_hold_the_papers_numbers(name, values):
    from attnprobe import objectives

    recipe = recipes.load(name)
    config = configure(recipe.objective, objectives.load(recipe.objective).config, recipe.tables)
    found = config.flat()
    assert {key: found[key] for key in values} == values
