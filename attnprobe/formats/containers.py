"""Cut one encoder's tensors out of whatever mapping a training script saved.

Wrapper keys (`state_dict`, `model`, `teacher`, ...) are descended, prefixes (`module.`,
`encoder.`, ...) are found from where the patch embedding lies. What was left is said.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnprobe.errors import FormatError

if TYPE_CHECKING:
    from torch import Tensor

# the first one that is present is taken; averaged copies only where that is the custom
WRAPPERS = (
    "teacher",
    "state_dict",
    "model",
    "module",
    "model_state_dict",
    "network",
    "net",
    "target_encoder",
    "encoder",
    "backbone",
    "params",
    "model_ema",
    "state_dict_ema",
    "ema",
    "student",
)
COPIES = ("teacher", "student", "model_ema", "state_dict_ema", "ema", "target_encoder")
LONGEST_NAME = 300
LARGEST_NESTING = 100_000  # mappings; far beyond any optimizer's
_ANCHORS = (
    re.compile(r"^((?:.*\.)?)patch_embed\.proj\.(?:0\.)?weight$"),
    re.compile(r"^((?:.*/)?)embedding/kernel$"),
    re.compile(r"^((?:.*\.)?)conv_proj\.weight$"),
    re.compile(r"^((?:.*\.)?)(?:blocks|layers)\.\d+\..*(?:attn|norm)"),
)
_ATTENTION = re.compile(r"attn|attention|in_proj|qkv")
# lower is better when a file holds several copies of the encoder
_RANKS = (("student", 3), ("momentum", 2), ("predictor", 4), ("ema", 2), ("teacher", 0))


@dataclass(frozen=True)
class Weights:
    """The tensors of one encoder and what lay around them.

    Attributes:
        tensors: Tensors by their name inside the encoder.
        prefix: What was stripped from every name.
        outside: "name: reason" for tensors that do not belong to the encoder.
        names: Every tensor name of the unwrapped mapping, before stripping.
        beside: Keys that lay beside the tensors at every level of the file.
        notes: Sentences about choices made on the way.
        config: The config.json that lay beside the file, or empty.
    """

    tensors: "dict[str, Tensor]"
    prefix: str
    outside: dict[str, str]
    names: frozenset[str]
    beside: frozenset[str]
    notes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


def unwrap(
    content: Any, *, part: str | None = None, config: Mapping[str, Any] | None = None
) -> Weights:
    """Find the encoder in the content of a checkpoint file.

    Args:
        content: What the file holds.
        part: Which encoder, of files that hold several: a wrapper key (teacher, student,
            model_ema) or a word of its prefix (base_encoder, momentum_encoder).
        config: The config.json beside the file.

    Raises:
        FormatError: There are no tensors, none that look like a transformer, or no such part.
    """
    flat, beside, notes = named_tensors(content, part)
    prefix, other_prefixes = _prefix(flat, None if _taken(notes, part) else part)
    tensors = {name[len(prefix) :]: t for name, t in flat.items() if name.startswith(prefix)}
    outside = {
        name: _outside_reason(name, prefix, other_prefixes)
        for name in flat
        if not name.startswith(prefix)
    }
    if other_prefixes:
        others = ", ".join(repr(other) for other in other_prefixes)
        notes = (*notes, f"weights taken from {prefix!r}; the file also holds {others}")
    return Weights(tensors, prefix, outside, frozenset(flat), beside, notes, config or {})


def named_tensors(
    content: Any, part: str | None = None
) -> "tuple[dict[str, Tensor], frozenset[str], tuple[str, ...]]":
    """Return a file's tensors by their dotted names, what lay beside them, and notes.

    Raises:
        FormatError: There are none, or their names or nesting are an attack.
    """
    try:
        _check_nesting(content)
        content, beside, notes = _descend(content, part)
        flat = dict(_flatten(content))
    except RecursionError as error:
        raise FormatError(
            "the file's mappings are nested without end", "save model.state_dict() instead"
        ) from error
    if not flat:
        keys = ", ".join(ascii(key[:60]).strip("'") for key in sorted(beside)[:10])
        found = keys or type(content).__name__
        raise FormatError(
            f"the file holds no named tensors (found: {found})",
            "save model.state_dict() and give that file",
        )
    _check_names(flat)
    return flat, beside, notes


def _descend(content: Any, part: str | None) -> tuple[Any, frozenset[str], tuple[str, ...]]:
    beside: set[str] = set()
    notes: list[str] = []
    while isinstance(content, Mapping):
        inner = [key for key in WRAPPERS if key in content and _holds_tensors(content[key])]
        if part in content and _holds_tensors(content[part]):
            inner = [part, *(key for key in inner if key != part)]
        beside |= {key for key in content if isinstance(key, str) and not _is_tensor(content[key])}
        if not inner or any(_is_tensor(value) for _, value in _items(content)):
            break
        copies = [key for key in inner[1:] if key in COPIES]
        if copies or inner[0] in (*COPIES, part):
            also = f" (the file also holds {', '.join(copies)})" if copies else ""
            notes.append(f"weights taken from {inner[0]!r}{also}")
        content = content[inner[0]]
    return content, frozenset(beside), tuple(notes)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        _is_tensor(item) or _holds_tensors(item) for _, item in _items(value)
    )


def _items(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Items by the class, because a pickle can give an instance an attribute `items`."""
    return dict.items(mapping) if isinstance(mapping, dict) else mapping.items()


def _check_nesting(content: Any) -> None:
    """Refuse mappings that contain themselves, or each other exponentially often."""
    left, seen = [content], 0
    while left:
        value, seen = left.pop(), seen + 1
        if seen > LARGEST_NESTING:
            raise RecursionError
        if isinstance(value, Mapping):
            left.extend(item for _, item in _items(value) if isinstance(item, Mapping))


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that would flood or steer the terminal they are printed on."""
    odd = next((name for name in names if len(name) > LONGEST_NAME or not name.isprintable()), None)
    if odd is not None:
        raise FormatError(
            f"a tensor name of {len(odd)} characters that begins {odd[:60]!a}, expected "
            f"printable text of at most {LONGEST_NAME} characters",
            "do not trust this file; get it from its authors",
        )


def _flatten(content: Any, prefix: str = "") -> "Iterator[tuple[str, Tensor]]":
    if not isinstance(content, Mapping):
        return
    for key, value in _items(content):
        if _is_tensor(value):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")


def _taken(notes: tuple[str, ...], part: str | None) -> bool:
    return any(note.startswith(f"weights taken from {part!r}") for note in notes)


def _prefix(names: Mapping[str, Any], part: str | None) -> tuple[str, list[str]]:
    for anchor in _ANCHORS:
        found = {match[1] for name in names if (match := anchor.match(name))}
        if found:
            best, *others = sorted(found, key=_rank)
            if part is not None:
                best = _asked(found, part)
                others = [other for other in sorted(found, key=_rank) if other != best]
            return best, others
    raise _no_transformer(names)


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


def _outside_reason(name: str, prefix: str, others: list[str]) -> str:
    copy = next((other for other in others if other and name.startswith(other)), None)
    if copy is not None:
        return f"another copy of the encoder ({copy!r})"
    return f"outside the encoder ({prefix!r})"


def _no_transformer(names: Mapping[str, Any]) -> FormatError:
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
