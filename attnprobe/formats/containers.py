"""Cut one encoder's tensors out of whatever mapping a training script saved.

Wrapper keys (`state_dict`, `model`, `teacher`, ...) are descended, prefixes (`module.`,
`encoder.`, ...) are found from where the patch embedding lies. What was left is said.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnprobe.errors import DISTRUST, FormatError
from attnprobe.formats import inmemory, prefixes

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
    "ema_state_dict",
    "ema",
    "student",
)
COPIES = (
    "teacher",
    "student",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema",
    "target_encoder",
)
LONGEST_NAME = 300
LARGEST_NESTING = 100_000  # mappings; far beyond any optimizer's


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
        stored: The file's name by name inside the encoder, where it is not prefix + name.
    """

    tensors: "dict[str, Tensor]"
    prefix: str
    outside: dict[str, str]
    names: frozenset[str]
    beside: frozenset[str]
    notes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)

    def file_name(self, name: str) -> str:
        """Return the name (or "a + b" names) that the file has for one inside the encoder."""
        parts = name.split(" + ")
        return " + ".join(self.stored.get(part, self.prefix + part) for part in parts)


def unwrap(
    content: Any,
    *,
    part: str | None = None,
    config: Mapping[str, Any] | None = None,
    anchor: str = "",
) -> Weights:
    """Find the encoder in the content of a checkpoint file.

    Args:
        content: What the file holds.
        part: Which encoder, of files that hold several: a wrapper key (teacher, student,
            model_ema) or a word of its prefix (base_encoder, momentum_encoder).
        config: The config.json beside the file.
        anchor: Pattern of a name in the encoder, before which the prefix stands; else the known.

    Raises:
        FormatError: There are no tensors, none that look like a transformer, or no such part.
    """
    flat, beside, notes = _flat(content, part)
    plain = prefixes.without_shells(flat)
    prefix, others = prefixes.find(plain, None if _taken(notes, part) else part, anchor)
    above = prefixes.above(prefix, plain)
    inner = {name: name[len(prefix) :] for name in plain if name.startswith(prefix)}
    inner |= {name: new for name, new in above.items() if new not in inner.values()}
    outside = {name: prefixes.reason(name, prefix, others) for name in plain if name not in inner}
    if others:
        also = ", ".join(repr(other) for other in others)
        notes = (*notes, f"weights taken from {prefix!r}; the file also holds {also}")
    inner = inmemory.spelled(inner)
    olds = dict(zip(plain, flat, strict=True))
    return Weights(
        {new: plain[name] for name, new in inner.items()},
        prefix,
        {olds[name]: reason for name, reason in outside.items()},
        frozenset(plain),
        beside,
        notes,
        config or {},
        {new: olds[name] for name, new in inner.items() if olds[name] != prefix + new},
    )


def named_tensors(
    content: Any, part: str | None = None
) -> "tuple[dict[str, Tensor], frozenset[str], tuple[str, ...]]":
    """Return a file's tensors by their dotted names, what lay beside them, and notes.

    Raises:
        FormatError: There are none, or their names or nesting are an attack.
    """
    flat, beside, notes = _flat(content, part)
    return prefixes.without_shells(flat), beside, notes


def _flat(
    content: Any, part: str | None
) -> "tuple[dict[str, Tensor], frozenset[str], tuple[str, ...]]":
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
        if "shadow_params" in beside:
            raise FormatError(
                "a list of averaged weights without their names (shadow_params)",
                "copy the average into the model and save model.state_dict()",
            )
        raise FormatError(
            f"the file holds no named tensors (found: {found})",
            "save model.state_dict() and give that file",
        )
    _check_names(flat)
    _check_whole(flat, beside)
    return flat, beside, notes


def _check_whole(flat: "dict[str, Tensor]", beside: frozenset[str]) -> None:
    """Refuse what DeepSpeed leaves of a model whose weights are spread over processes."""
    if not beside.isdisjoint(("ds_version", "ds_config")):
        empty = [name for name, tensor in flat.items() if tensor.numel() == 0]
        if empty:
            raise FormatError(
                f"DeepSpeed's share of one process: {len(empty)} weights are empty ({empty[0]})",
                "gather them with the zero_to_fp32.py that lies beside the checkpoint",
            )


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
            DISTRUST,
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
