"""Follow a pickle without running it: no name in it is ever imported, no object ever called.

`pickletools` splits the bytes into steps; each is done here on an inert stack machine.
"""

import pickletools
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

from attnprobe.checkpoints.reading import storages
from attnprobe.checkpoints.reading.stackmachine import (
    Builders,
    Machine,
    Persistent,
    Placeholder,
    put,
)

MOST_STEPS = 5_000_000  # ten seconds; the largest optimizer states have some hundred thousand


def load(
    file: Any, persistent: Persistent, builders: Builders = storages.BUILDERS
) -> tuple[Any, bool]:
    r"""Return one pickled object, and whether it holds objects that were left inert.

    Args:
        file: The pickle, or an open file that will be read to the pickle's end.
        persistent: Gives the storages that lie outside the pickle.
        builders: By the name of a function, what answers its pickled calls.

    Raises:
        UnpicklingError: It is damaged, or asks for too much.

    >>> load(b"(I1\nI2\ntcos\nsystem\n(tR\x86.", None)[1]
    True
    """
    machine, position = Machine(persistent, builders), 0
    try:
        for count, (opcode, argument, place) in enumerate(pickletools.genops(file)):
            position = place or 0
            if count > MOST_STEPS:
                raise UnpicklingError(f"more than {MOST_STEPS} steps")
            if opcode.name not in _FREE:
                machine.spend(1)
            _STEPS[opcode.name](machine, argument)
        return machine.stack.pop(), machine.foreign
    except Exception as error:
        told = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UnpicklingError(f"its pickle fails at byte {position}: {told}") from error


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Placeholder):
        raise UnpicklingError("an item appended to what is no list")


def _set_items(machine: Machine, items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        put(machine.stack[-1], key, value)


def _dict(machine: Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.push({})
    _set_items(machine, items)


def _tuple(machine: Machine, count: int) -> None:
    if len(machine.stack) < count:
        raise UnpicklingError("the stack is empty")
    items = tuple(machine.stack[-count:])
    del machine.stack[-count:]
    machine.push(items)


def _append(machine: Machine, _: Any) -> None:
    item = machine.stack.pop()
    _extend(machine.stack[-1], [item])


def _extend_top(machine: Machine, _: Any) -> None:
    items = machine.pop_mark()
    _extend(machine.stack[-1], items)


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    put(machine.stack[-1], key, value)


def _memoize(machine: Machine, index: Any) -> None:
    if not 0 <= index < 2**32:
        raise UnpicklingError(f"object number {str(index)[:20]}")
    machine.memo[index] = machine.stack[-1]


def _global(machine: Machine, text: str) -> None:
    machine.push(machine.name(text.replace(" ", ".", 1)))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise UnpicklingError("a class whose name is no text")
    machine.push(machine.name(f"{module}.{name}"))


def _reduce(machine: Machine, _: Any) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.call(function, args))


def _new_with_keywords(machine: Machine, _: Any) -> None:
    machine.stack.pop()
    _reduce(machine, None)


def _object(machine: Machine, _: Any) -> None:
    kind, *_args = machine.pop_mark()
    machine.push(machine.instance(kind))


def _instance(machine: Machine, text: str) -> None:
    machine.pop_mark()
    machine.push(machine.instance(machine.name(text.replace(" ", ".", 1))))


def _build(machine: Machine, _: Any) -> None:
    """Keep an object's state; that of tensors, mappings and functions is left out."""
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, Placeholder) and target.called:
        target.state = state


def _unknown(machine: Machine, _: Any) -> None:
    machine.push(machine.instance(None))


Step = Callable[[Machine, Any], Any]
_STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP", "READONLY_BUFFER"), lambda m, a: None),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"), _unknown),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _memoize),
    "MEMOIZE": lambda m, a: _memoize(m, len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[a])),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_SET": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "MARK": lambda m, a: m.marks.append(len(m.stack)),
    "POP": lambda m, a: m.pop() and None,
    "POP_MARK": lambda m, a: m.pop_mark() and None,
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, a: _tuple(m, 1),
    "TUPLE2": lambda m, a: _tuple(m, 2),
    "TUPLE3": lambda m, a: _tuple(m, 3),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, a: m.push(m.pop_mark())),
    "DICT": _dict,
    "APPEND": _append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _extend_top),
    "SETITEM": _set_item,
    "SETITEMS": lambda m, a: _set_items(m, m.pop_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    "NEWOBJ_EX": _new_with_keywords,
    "BUILD": _build,
    "PERSID": lambda m, a: m.push(m.stored(a)),
    "BINPERSID": lambda m, a: m.push(m.stored(m.stack.pop())),
}
_FREE = {  # steps that make nothing but numbers and texts, of which the bytes are many enough
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    *("BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("FLOAT", "BINFLOAT", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "GET", "BINGET"),
    *("LONG_BINGET", "POP", "DUP", "STOP"),
}
_STEPS |= {name: Machine.push for name in _FREE if name not in _STEPS}
