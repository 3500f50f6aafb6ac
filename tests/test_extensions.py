"""A user's own format and reader from a Python file, and what is wrong with bad ones."""

from pathlib import Path

import pytest
import torch
from random_modules import randomised

import attnprobe
from attnprobe import extensions
from attnprobe.errors import AttnprobeError, FormatError

EXAMPLE = Path(__file__).parent.parent / "examples" / "my_format.py"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A file in the example's format, and the module that it came from."""
    found = extensions.load([EXAMPLE])
    shapes = {
        "patch_embed.proj.weight": (32, 3, 8, 8),
        "pos_embed": (1, 17, 32),
        "blocks.1.x": (1,),
    }
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    module = randomised(found.formats[0].build(state, {})).eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("mine") / "mine.pth"
    spelled = {
        name.replace("blocks.", "stages.").replace(".qkv.", ".in_proj."): tensor
        for name, tensor in module.state_dict().items()
    }
    torch.save(spelled, path)
    return path, module


def test_the_example_loads_and_is_measured_as_float64_says(mine):
    path, module = mine
    loaded = attnprobe.load(path, plugins=[EXAMPLE])
    assert loaded.spec.format == "mine"
    assert loaded.spec.input_size == (3, 32, 32)
    assert "stages.0.attn.in_proj.weight -> blocks.0.attn.qkv.weight" in loaded.ledger.converted
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))
    result = attnprobe.analyze(loaded, images, metrics=["entropy"])
    seen = []
    module.blocks[0].attn.register_forward_pre_hook(lambda _, args: seen.append(args[0].double()))
    with torch.no_grad():
        module(images)  # tensors go in as they are
    qkv = torch.nn.functional.linear(
        seen[0], module.blocks[0].attn.qkv.weight.double(), module.blocks[0].attn.qkv.bias.double()
    )
    q, k, _ = qkv.unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT * module.blocks[0].attn.scale).softmax(-1)[..., 1:, 1:]
    weights = weights / weights.sum(-1, keepdim=True)
    entropy = -(weights * weights.log()).sum(-1).mean((0, 2))
    table = result.tables["entropy"]
    found = table[table["layer"] == 0].sort_values("head")["value"].to_numpy()
    assert found == pytest.approx(entropy.numpy(), rel=1e-5)


def test_without_the_plugin_the_file_is_refused(mine):
    with pytest.raises(FormatError, match=r"mine\.pth"):
        attnprobe.load(mine[0])


def test_its_own_reader_reads_what_the_common_tap_reads(mine, tmp_path):
    plugin = tmp_path / "format_only.py"
    plugin.write_text(EXAMPLE.read_text().replace("\nREADER = ", "\nOTHER = "))
    images = torch.rand(3, 3, 32, 32)
    tables = [
        attnprobe.analyze(
            attnprobe.load(mine[0], plugins=[path]), images, metrics=["entropy"]
        ).tables["entropy"]["value"]
        for path in (EXAMPLE, plugin)
    ]
    assert tables[0].to_numpy() == pytest.approx(tables[1].to_numpy(), rel=1e-5)


BAD = {
    "nothing": ("x = 1", "exports none of FORMAT"),
    "syntax": ("def", "SyntaxError"),
    "raises": ("raise KeyError('k')", "KeyError"),
    "another": ("FORMAT = {'name': 'x'}", "must be an attnprobe Format, not dict"),
    "reader": ("READER = 3", "must be an attnprobe Reader, not int"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_plugins_say_what_is_wrong(tmp_path, kind):
    text, words = BAD[kind]
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(AttnprobeError, match=words) as caught:
        extensions.load([path])
    assert str(path) in caught.value.cause


def test_files_that_are_no_python_or_absent_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("FORMAT = 1")
    with pytest.raises(AttnprobeError, match="not a Python file"):
        extensions.load([tmp_path / "a.txt"])
    with pytest.raises(AttnprobeError, match="FileNotFoundError"):
        extensions.load([tmp_path / "absent.py"])


def test_a_build_that_fails_is_named(mine, tmp_path):
    plugin = tmp_path / "fails.py"
    plugin.write_text(
        EXAMPLE.read_text().replace("    del stated\n", "    raise ValueError(stated)\n")
    )
    with pytest.raises(FormatError, match=r"format mine could not build its module \(ValueError"):
        attnprobe.load(mine[0], plugins=[plugin])
