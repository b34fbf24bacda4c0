"""What a process holds: the objects of some classes that are reachable from its own ones."""

import gc
import sys
from collections.abc import Iterator
from typing import Any

# Classes whose objects are looked into, by the start of their module: not those of the world, nor of other processes.
_OURS = (
    "bridge.",
    "consumers.",
    "tests.simulation.replica",
    "builtins",
    "collections",
    "functools",
    "asyncio.",
    "_asyncio",
    "tests.simulation.loop",
)
_NOT = ("module", "type", "str", "bytes", "int", "float", "SimulatedLoop", "Process")


def held(*roots: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """Return the objects of these classes that are reachable from `roots`."""
    seen = {id(module.__dict__) for module in sys.modules.values() if hasattr(module, "__dict__")}
    left = list(roots)
    while left:
        each = left.pop()
        kind = type(each)
        if id(each) in seen or not kind.__module__.startswith(_OURS) or kind.__name__ in _NOT:
            continue
        seen.add(id(each))
        if isinstance(each, kinds):
            yield each
        left += gc.get_referents(each)
