"""Which items MessagePack gives back as they were."""

from __future__ import annotations

from collections.abc import Collection

_EXACT = frozenset({int, float, bool, str, bytes, type(None)})
_MANY = 16  # parts, of which it is faster to ask for all types at once


def is_exact(item: object, depth: int) -> bool:
    try:
        return type(item) in _EXACT or _is_exact(item, depth)
    except RuntimeError:  # another thread changes it, or this one is deep in calls
        return False


def _is_exact(item: object, depth: int) -> bool:
    """Of a list or dict."""
    if depth <= 0:
        return False
    if isinstance(item, dict) and type(item) is dict:
        return _are_exact(item, depth - 1) and _are_exact(item.values(), depth - 1)
    return isinstance(item, list) and type(item) is list and _are_exact(item, depth - 1)


def _are_exact(parts: Collection[object], depth: int) -> bool:
    if len(parts) > _MANY and {*map(type, parts)} <= _EXACT:
        return True
    for part in parts:  # noqa: SIM110 - of a few, faster than any way without a loop
        if type(part) not in _EXACT and not _is_exact(part, depth):
            return False
    return True
