"""Find the elements of a body that the tables of a mapping file are evaluated for.

`each` selects objects, lists, strings or numbers of the body; a single one counts as a list of one. Each element has a
pointer, which separates its members from those of its neighbours. Items that a filter of `each` leaves out are
elements, too, so that they are not lost unnoticed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.mapping.assemble import children, escaped, pointers_around
from bridge.mapping.json_body import Real
from bridge.mapping.mapped_functions import ExhaustedError, Expression, Scope, UnfitError
from bridge.mapping.words import is_given

# Objects and lists of a body whose read members are tracked, at half a microsecond each; members of any others are kept
# in `extensions` even if read.
PLACES_MAX = 20_000

_NESTED = (dict, list)
_NOTHING: frozenset[str] = frozenset()


class Folded:
    """A copy of a document with case-folded names; of two spellings of a name, the first with a value is used."""

    def __init__(self, document: object) -> None:
        # Identity of a folded object -> folded name -> the original name, if it differs.
        self.spelled: dict[int, dict[str, str]] = {}
        self.ambiguous: set[str] = set()  # folded names with two spellings in one object
        self.document = self._fold(document)  # the folded copy

    def _fold(self, node: object) -> object:
        if isinstance(node, list):
            return [self._fold(child) for child in node]
        if not isinstance(node, dict):
            return node
        names: dict[str, str] = {}
        given: set[str] = set()
        for name, child in node.items():
            plain = name.casefold()
            if plain in names:
                self.ambiguous.add(plain)
            counts = plain not in given and is_given(child)
            if counts or plain not in names:
                names[plain] = name
            if counts:
                given.add(plain)
        out = {plain: self._fold(node[name]) for plain, name in names.items()}
        self.spelled[id(out)] = {plain: name for plain, name in names.items() if plain != name}
        return out


class Spot(NamedTuple):
    """The body, or an element that `each` selects: the unit that a table is evaluated for."""

    element: object
    path: str  # path as in the mapping file, array indexes as `*`
    pointer: str  # pointer in the body; empty for the body itself
    # From 1 among its table's elements; negative, by place in its list, if no table has it; 0 for the body.
    position: int = 0
    parent: object = None  # the object that contains its list
    parent_path: str = ""
    empty: str = ""  # path of the list that a nested `each` did not find in it


class Elements:
    """The elements of all tables in one body."""

    def __init__(self, root: Any, scope: Scope, *, folded: Folded | None, base: str = "", path: str = "") -> None:
        """`base` is the pointer of `root` in the body, `path` the same without positions."""
        self.body = Spot(root, path, "")
        self.spots: dict[str, Spot] = {}  # elements that need an outcome, by pointer
        self.owners: set[str] = set()  # pointers of these elements and of everything that encloses them
        self.nowhere = ""  # path at which `each` found nothing
        self.is_empty = False  # whether `each` found a list without items in the body
        self.lost = ""  # path of an `each` that cannot be evaluated, or finds values not in the body
        self.parent_path = ""  # path of the object called `parent`, without positions
        self._scope, self._folded, self._base = scope, folded, base
        self._levels: dict[int, list[Spot]] = {}  # identity of an `each` -> its elements
        self._pointers: dict[int, str] = {}  # identity of an object or list in the body -> its pointer
        self._nodes: dict[str, object] = {}  # the inverse

    def find(self, lists: Sequence[Expression]) -> list[Spot]:
        """Return the elements of a table, from its lists, each list within an element of the previous one."""
        if not lists:
            return [self.body]
        if (found := self._levels.get(id(lists))) is not None:
            return found
        self._scope.spread.clear()
        level = [self.body]
        for depth, each in enumerate(lists, 1):
            before, level = level, []
            for spot in before:
                below = self._below(spot, each)
                level += below
                if not below and spot is self.body:
                    self.nowhere = self.nowhere or each.path
                elif not below:
                    self.spots.setdefault(
                        spot.pointer, spot._replace(position=-spot.position, empty=f"{spot.path}{each.path}")
                    )
            level = [spot._replace(position=number) if spot.position else spot for number, spot in enumerate(level, 1)]
            self._note(level, is_last=depth == len(lists))
        level = self._levels[id(lists)] = [spot for spot in level if spot.element is not None]
        return level

    def _note(self, spots: Sequence[Spot], *, is_last: bool) -> None:
        """Note elements, and elements that a filter left out of their lists: each needs an outcome."""
        held = {spot.pointer: spot for spot in spots if spot.position and spot.element is not None}
        around = {at: spot for spot in held.values() for at in pointers_around(spot.pointer)}
        self._divide(around, held if is_last else {}, passed=held.keys() | around.keys())
        self.owners.update(held)
        for pointer, spot in held.items() if is_last else ():
            self.spots.setdefault(pointer, spot)

    def _divide(self, lists: Mapping[str, Spot], held: Mapping[str, Spot], *, passed: Collection[str] = ()) -> None:
        """Note items of `lists` that need an outcome: those in `held`, and others neither null nor `passed`."""
        for at, spot in lists.items():
            node = self._nodes.get(at)
            is_list = type(node) is list
            for name, item in children(node) if is_list or id(node) in self._scope.spread else ():
                pointer = f"{at}/{escaped(self.written(id(node), name))}"
                self.owners.add(pointer)
                if pointer in held:
                    self.spots.setdefault(pointer, held[pointer])
                elif pointer not in passed and item is not None:
                    position = -int(name) - 1 if is_list else -1
                    self.spots.setdefault(pointer, spot._replace(element=item, pointer=pointer, position=position))

    def _below(self, spot: Spot, each: Expression) -> list[Spot]:
        """Return the elements that an `each` finds in a spot; an object counts as a list of one."""
        self.enter(spot)
        path = f"{spot.path}{each.path}"
        try:
            found = None if spot.element is None else self._scope.evaluate(each, spot.element)
        except UnfitError:
            self.lost = self.lost or path
            return []
        if isinstance(found, dict):
            found, paths = [found], [self._pointer(found)]
        elif isinstance(found, str | Real) or type(found) is int:
            found, paths = [found], [*self.read_pointers(found)] if len(self.read_pointers(found)) == 1 else [None]
        elif isinstance(found, list):
            if len(found) == 1 and found[0] is self.body.element:
                return [self.body]
            path = f"{path}/*"
            paths = self._element_pointers(found, spot)
        else:
            return []
        is_lost = any(at is None and element is not None for element, at in zip(found, paths, strict=True))
        is_ambiguous = bool(self._folded and self._folded.ambiguous & each.names)
        if is_lost or (found and is_ambiguous):
            if len(self._pointers) >= PLACES_MAX:
                raise ExhaustedError
            self.lost = self.lost or path
        if not found:
            # A filter may have left out all items.
            lists = {at: node for node in self._lists_read(spot) if (at := self._pointer(node)) is not None}
            self.is_empty |= [] in lists.values() and not (is_ambiguous or self._base)
            outer = {at for at in lists if lists.keys().isdisjoint(pointers_around(at))}
            self._divide({at: Spot(None, path, at, 0, spot.element, spot.path) for at in outer}, {})
        return [
            Spot(element, path, at or "", number, spot.element, spot.path)
            for number, (element, at) in enumerate(zip(found, paths, strict=True), 1)
        ]

    def _lists_read(self, spot: Spot) -> list[list[object]]:
        """Return the lists that the last expression read or was searched in."""
        return [node for node in (*self._scope.read.values(), spot.element) if isinstance(node, list)]

    def _pointer(self, node: object) -> str | None:
        """Return the pointer of an object or list in the body; None for a value made by an expression."""
        return (self._pointers or self._find_pointers()).get(id(node))

    def _element_pointers(self, found: list[object], spot: Spot) -> list[str | None]:
        """Return the pointers of the elements that an expression found in the body."""
        if (at := self._pointer(found)) is not None:
            return [f"{at}/{number}" for number in range(len(found))]
        # Strings and numbers are matched by order, in the lists that the expression read.
        lists = self._lists_read(spot)
        items = ((f"{self._pointer(node)}/{number}", item) for node in lists for number, item in enumerate(node))
        return [
            self._pointer(node) if type(node) in _NESTED else next((at for at, item in items if item is node), None)
            for node in found
        ]

    def enter(self, spot: Spot) -> None:
        """Make an element the current one for expressions."""
        self._scope.element, self._scope.parent, self.parent_path = spot.element, spot.parent, spot.parent_path
        if type(spot.element) not in _NESTED:
            # Two elements may be the same Python object, in different parents.
            self._scope.named.clear()

    def _find_pointers(self) -> dict[int, str]:
        """Return the pointers of the body's first `PLACES_MAX` objects and lists, by identity."""
        nodes = [(self.body.element, self._base)]
        for node, pointer in nodes:
            self._pointers[id(node)] = pointer
            self._nodes[pointer] = node
            for name, child in children(node):
                if type(child) in _NESTED and len(nodes) < PLACES_MAX:
                    nodes.append((child, f"{pointer}/{escaped(self.written(id(node), name))}"))
        return self._pointers

    def read_pointers(self, value: object) -> frozenset[str]:
        """Return pointers of members that the last expression read; an object counts only if it is the whole value."""
        members = [
            member
            for member, item in self._scope.read.items()
            if item is not None and (item is value or type(item) not in _NESTED)
        ]
        if not members:
            return _NOTHING
        pointers = self._pointers or self._find_pointers()
        return frozenset(
            f"{pointers[owner]}/{escaped(self.written(owner, name))}" for owner, name in members if owner in pointers
        )

    def written(self, owner: int, name: str) -> str:
        """Return the spelling of a name in the body, in the object with this identity."""
        return self._folded.spelled.get(owner, {}).get(name, name) if self._folded else name
