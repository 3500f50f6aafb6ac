"""Nested tables, as of TOML files, laid over one another. Torch-free."""

import copy
from typing import Any


def laid(*tables: dict[str, Any]) -> dict[str, Any]:
    """Lay nested tables over one another, the later over the earlier.

    >>> laid({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    found: dict[str, Any] = {}
    for table in tables:
        for name, value in copy.deepcopy(table).items():
            older = found.get(name)
            if isinstance(older, dict) and isinstance(value, dict):
                found[name] = laid(older, value)
            else:
                found[name] = value
    return found
