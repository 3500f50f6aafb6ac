"""The stack machine of pickles, without their powers: nothing is imported, nothing is called.

Tensors are rebuilt, mappings become dicts and sets lists; every other object is a `Placeholder`
that keeps its state inertly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch

MOST_OBJECTS = 1_000_000  # a tensor takes about forty
LONGEST_NAME = 1000
COST_OF_CALL = 5  # objects; a tensor takes as much memory as several containers
LARGEST_KEY = 2**63
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
_ITEMS = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "list")}


@dataclass(slots=True, eq=False)
class Placeholder:
    """Stands for an object whose class was not asked.

    Attributes:
        name: Module and class, as the file spells them.
        state: Its pickled state.
        items: Its items, if it is a kind of mapping.
        called: Whether it stands for an instance and not for the class itself.
    """

    name: str
    state: Any = None
    items: dict[Any, Any] | None = None
    called: bool = False


Persistent = Callable[[Any], Any]  # from what the pickle names to a storage
Builders = Mapping[str, Callable[..., Any]]


class Machine:
    """The stack, the marks in it, and the memo of a pickle that is being followed."""

    def __init__(self, persistent: Persistent, builders: Builders) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[str, Placeholder] = {}
        self.persistent = persistent
        self.builders = builders
        self.objects = 0
        self.foreign = False

    def spend(self, objects: int) -> None:
        """Count objects; a small pickle can ask for very many.

        Raises:
            UnpicklingError: There are too many.
        """
        self.objects += objects
        if self.objects > MOST_OBJECTS:
            raise UnpicklingError(f"more than {MOST_OBJECTS} objects")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the topmost value, or mark, off the stack."""
        if self.marks and self.marks[-1] == len(self.stack):
            return self.marks.pop()
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def name(self, text: str) -> Any:
        """Return a dtype, or the placeholder of a class or function that will not be asked."""
        if len(text) > LONGEST_NAME:
            raise UnpicklingError(f"a class whose name has {len(text)} characters")
        module, _, last = text.rpartition(".")
        found = vars(torch).get(last) if module == "torch" else None
        if isinstance(found, torch.dtype):
            return found
        return self.names.setdefault(text, Placeholder(text))

    def stored(self, place: Any) -> Any:
        """Return what lies outside the pickle."""
        self.spend(len(place) if isinstance(place, tuple) else 1)
        return self.persistent(place)

    def instance(self, kind: Any) -> Placeholder:
        """Return the placeholder of an object of a class."""
        self.foreign = True
        self.spend(COST_OF_CALL)
        return Placeholder(kind.name if isinstance(kind, Placeholder) else "", called=True)

    def call(self, function: Any, args: Any) -> Any:
        """Answer a pickled call: by a tensor, a mapping, a plain value or a placeholder."""
        name = function.name if isinstance(function, Placeholder) and not function.called else ""
        args = args if isinstance(args, tuple | list) else ()
        if name == "torch._tensor._rebuild_from_type_v2" and len(args) == 4:
            # a tensor with attributes: what it is built by, its class, arguments, attributes
            function, args = args[0], args[2]
            name = function.name if isinstance(function, Placeholder) else ""
        if name in self.builders:
            self.spend(COST_OF_CALL + len(args))
            return self.builders[name](*args)
        if name in _MAPPINGS:
            return self.mapping(args[0] if args and isinstance(args[0], list | dict) else ())
        if name == "torch.Size" or name in _ITEMS:
            return args[0] if args else []
        if name in ("torch.device", "torch.serialization._get_layout", "_codecs.encode"):
            return args[0] if args else ""
        return self.instance(function)

    def mapping(self, pairs: Any) -> dict[Any, Any]:
        """Return a dict of pairs."""
        self.spend(1 + len(pairs))
        found: dict[Any, Any] = {}
        for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
            put(found, key, value)
        return found


def put(target: Any, key: Any, value: Any) -> None:
    """Set one item; keys that could be slow or dangerous to hash are left out."""
    if isinstance(target, Placeholder):
        target.items = target = {} if target.items is None else target.items
    if not isinstance(target, dict):
        raise UnpicklingError("an item set in what is no mapping")
    plain = type(key) in (str, bytes, float, bool, type(None))
    if plain or (type(key) is int and abs(key) < LARGEST_KEY):
        target[key] = value
