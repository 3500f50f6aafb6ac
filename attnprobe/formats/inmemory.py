"""The names that transformers 5 has in memory, as its `save_pretrained` spells them.

`state_dict()`, and with it every training loop that saves it, gives the names in memory;
`save_pretrained` writes the older ones, which the formats read.
"""

import re
from collections.abc import Collection, Mapping

_PARTS = {"q": "query", "k": "key", "v": "value", "o": "output.dense"}
_ATTENTION = re.compile(r"\.attention\.([qkvo])_proj\.")
_TABLE = "relative_position_bias.relative_position_bias_table"
_SIGN = re.compile(r"^(?:layers|encoder\.layers?)\.\d+\.(?:blocks\.\d+\.)?attention\.q_proj\.")


def shown(names: Collection[str]) -> bool:
    """Whether an encoder's names are those in memory."""
    return any(name.startswith("embeddings.patch_embeddings") for name in names) and any(
        _SIGN.match(name) for name in names
    )


def spelled(inner: Mapping[str, str]) -> dict[str, str]:
    """Return names inside the encoder by the file's, in the saved spelling where they need it."""
    if not shown(inner.values()):
        return dict(inner)
    windowed = any(".blocks." in new for new in inner.values())
    return {name: as_saved(new, windowed=windowed) for name, new in inner.items()}


def as_saved(name: str, *, windowed: bool) -> str:
    """Return the saved spelling of a name inside the encoder.

    Args:
        name: The name in memory.
        windowed: Whether the model is Swin, whose attention has a middle part called self.

    >>> as_saved("layers.3.attention.q_proj.bias", windowed=False)
    'encoder.layer.3.attention.attention.query.bias'
    >>> as_saved("encoder.layers.0.blocks.1.mlp.fc2.weight", windowed=True)
    'encoder.layers.0.blocks.1.output.dense.weight'
    """
    middle = "self" if windowed else "attention"
    inner = _ATTENTION.sub(lambda match: _attention(match[1], middle), name)
    if not windowed and name.startswith("encoder."):  # DINOv2 renames its attention only
        return inner
    inner = re.sub(r"\.mlp\.fc1\.", ".intermediate.dense.", inner)
    inner = re.sub(r"\.mlp\.fc2\.", ".output.dense.", inner)
    if windowed:
        return inner.replace(f".attention.{_TABLE}", ".attention.self.relative_position_bias_table")
    inner = re.sub(r"^layers\.(\d+)\.", r"encoder.layer.\1.", inner)
    inner = re.sub(r"^shared_position_bias\.", "encoder.relative_position_bias.", inner)
    return re.sub(rf"^(encoder\.layer\.\d+)\.{_TABLE}$", rf"\1.attention.attention.{_TABLE}", inner)


def _attention(part: str, middle: str) -> str:
    return f".attention.{_PARTS[part]}." if part == "o" else f".attention.{middle}.{_PARTS[part]}."
