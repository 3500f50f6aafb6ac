"""Where in a file the encoder lies: the prefix of its names, and what the rest is."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attnprobe.errors import FormatError

if TYPE_CHECKING:
    from torch import Tensor

# each is found once in an encoder; what stands before it is the prefix
_ANCHORS = (
    re.compile(r"^((?:.*\.)?)patch_embed\.(?:proj|projection)\.(?:0\.)?weight$"),
    re.compile(r"^((?:.*\.)?)embeddings\.patch_embeddings?\.(?:projection\.)?weight$"),
    re.compile(r"^((?:.*/)?)embedding/kernel$"),
    re.compile(r"^((?:.*\.)?)conv_proj\.weight$"),
    re.compile(r"^((?:.*\.)?)preprocessor\.patchifier\.proj\.weight$"),
    re.compile(r"^((?:.*\.)?)class_embedding$"),
    re.compile(r"^((?:.*\.)?)(?:blocks|layers)\.\d+\..*(?:attn|norm)"),
)
_ATTENTION = re.compile(r"attn|attention|in_proj|qkv")
# lower is better when a file holds several copies of the encoder
_RANKS = (("student", 3), ("momentum", 2), ("predictor", 4), ("ema", 2), ("teacher", 0))
# parts of an encoder that some frameworks keep one level above it
_ABOVE = re.compile(
    r"^(classifier|cls_classifier|distillation_classifier|layernorm|head\.fc"
    r"|head\.layers\.head(?:_dist)?)\.(weight|bias)$"
)
_REASONS = (
    (r"(^|\.)(text_model|text_projection|text|token_embedding|ln_final)\b", "text tower"),
    (r"(^|\.)logit_(scale|bias)$", "temperature of the image-text loss"),
    (r"(^|\.)visual_projection\.", "projection to the space shared with text"),
    (r"(^|\.)(decoder|decoder_\w+|lm_head|mask_token)\b", "decoder of the pre-training task"),
    (r"(^|\.)(neck|predictor|cls_head)\.", "head of the pre-training task"),
    (r"(^|\.)data_preprocessor\.", "preprocessing constants"),
    (r"(^|\.)n_averaged$", "count of averaged models"),
)


# shells that training frameworks put around modules, at any depth
_SHELLS = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)


def find(names: Mapping[str, Any], part: str | None, anchor: str = "") -> tuple[str, list[str]]:
    """Return the prefix of the encoder and those of its other copies.

    Args:
        names: Tensors by name.
        part: A word of the prefix that is wanted.
        anchor: Pattern of a name in the encoder, looked for instead of the known ones.

    Raises:
        FormatError: No encoder, or no such part.
    """
    for known in [re.compile(rf"^((?:.*\.)?){anchor}")] if anchor else _ANCHORS:
        found = {match[1] for name in names if (match := known.match(name))}
        if found:
            best, *others = sorted(found, key=_rank)
            if part is not None:
                best = _asked(found, part)
                others = [other for other in sorted(found, key=_rank) if other != best]
            return best, others
    raise _no_transformer(names)


def above(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Return names inside the encoder of what is kept one level above it, by the file's name.

    >>> above("model.vit.", ["model.classifier.weight", "model.vit.layernorm.weight"])
    {'model.classifier.weight': 'classifier.weight'}
    """
    parent = prefix.rstrip(".").rpartition(".")[0]
    parent += "." if parent else ""
    if not prefix:
        return {}
    return {
        name: inner
        for name in names
        if not name.startswith(prefix)
        and name.startswith(parent)
        and _ABOVE.match(inner := name.removeprefix(parent))
    }


def reason(name: str, prefix: str, others: list[str]) -> str:
    """Say why a tensor outside the prefix is no part of the encoder."""
    copy = next((other for other in others if other and name.startswith(other)), None)
    if copy is not None:
        return f"another copy of the encoder ({copy!r})"
    known = next((why for pattern, why in _REASONS if re.search(pattern, name)), None)
    return f"outside the encoder: {known}" if known else f"outside the encoder ({prefix!r})"


def without_shells(flat: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Take compilers' and sharding's shells out of the names, in the same order."""
    plain = {_SHELLS.sub("", name): tensor for name, tensor in flat.items()}
    if len(plain) != len(flat):
        raise FormatError(
            "two tensors have one name once _orig_mod. and the like are left out",
            "save the inner module's state_dict() alone",
        )
    return plain


def _asked(prefixes: set[str], part: str) -> str:
    """Return the one prefix of which a dotted component is the part that was asked for."""
    fitting = [prefix for prefix in prefixes if part in prefix.split(".")]
    if len(fitting) != 1:
        parts = sorted({word for prefix in prefixes for word in prefix.split(".") if word})
        known = ", ".join(parts) or "nothing but one unnamed encoder"
        raise FormatError(
            f"the file has {len(fitting) or 'no'} encoders named {part!r} (it holds {known})",
            "leave --part out, or give one of those",
        )
    return fitting[0]


def _rank(prefix: str) -> tuple[int, int, str]:
    rank = next((rank for word, rank in _RANKS if word in prefix), 1)
    return rank, len(prefix), prefix


def _no_transformer(names: Mapping[str, Any]) -> FormatError:
    if any(name.rpartition(".")[2].endswith("flat_param") for name in names):
        return FormatError(
            "FSDP's flattened parameters of one process (flat_param), which have no names",
            "gather a full state dict (StateDictType.FULL_STATE_DICT) and save that",
        )
    convolutions = [name for name, t in names.items() if t.ndim == 4 and name.endswith("weight")]
    if convolutions and not any(_ATTENTION.search(name) for name in names):
        return FormatError(
            f"no attention in this checkpoint: {len(convolutions)} convolution layers "
            f"({', '.join(convolutions[:5])}, ...) and no transformer block",
            "attnprobe measures attention heads: give a vision transformer",
        )
    some = ", ".join(list(names)[:8])
    return FormatError(
        f"no vision transformer of a known layout: expected patch_embed.proj.weight, found {some}",
        "see `attnprobe list formats` for the layouts that are read",
    )
