"""Where the tables of a mapping file find their elements in a body, and what else is in the lists of these.

`each` selects objects, lists, texts or numbers of the body; one that stands alone is a list of one. Each element has a
pointer, so that what it says can be told from what its neighbours say. A filter hides nothing: the lists around what
`each` selects are divided, and each of their items is an element, too.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.mapping.assemble import children, escaped, pointers_around
from bridge.mapping.json_body import Real
from bridge.mapping.mapped_functions import ExhaustedError, Expression, Scope, UnfitError
from bridge.mapping.words import is_given

# Objects and lists of a body whose members count as read, half a microsecond each; those of any other are kept as well.
PLACES_MAX = 20_000

_NESTED = (dict, list)
_NOTHING: frozenset[str] = frozenset()


class Folded:
    """A copy of a document with folded names; of two spellings of a name, the first with a value counts."""

    def __init__(self, document: object) -> None:
        # Identity of a folded object -> folded name -> the name as it is written, where that differs.
        self.spelled: dict[int, dict[str, str]] = {}
        self.ambiguous: set[str] = set()  # folded names of which an object has two spellings
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
    """The body, or an element of it that `each` names: what a table is evaluated for."""

    element: object
    path: str  # as the file has it, array indexes as `*`
    pointer: str  # in the body; empty for the body itself
    # Among the elements of its table, from 1; of what is in none, negative among those of its list; 0 for the body.
    position: int = 0
    parent: object = None  # the object that its list stands in
    parent_path: str = ""
    empty: str = ""  # path of the list that a nested `each` has not found in it


class Elements:
    """The elements of all tables in one body."""

    def __init__(self, root: Any, scope: Scope, *, folded: Folded | None, base: str = "", path: str = "") -> None:
        """Find none yet; `base` is the pointer of `root` in the body, and `path` that without positions."""
        self.body = Spot(root, path, "")
        self.spots: dict[str, Spot] = {}  # what needs an outcome, by pointer
        self.owners: set[str] = set()  # pointers of these, and of what is around them
        self.nowhere = ""  # path at which `each` has found nothing
        self.lost = ""  # path at which `each` has found what has no place in the body
        self.parent_path = ""  # of the object called `parent`, without positions
        self._scope, self._folded, self._base = scope, folded, base
        self._levels: dict[int, list[Spot]] = {}  # identity of an `each` -> its elements
        self._pointers: dict[int, str] = {}  # identity of an object or list in the body -> its pointer
        self._nodes: dict[str, object] = {}  # the same the other way round

    def find(self, lists: Sequence[Expression]) -> list[Spot]:
        """Return what a table is evaluated for: the elements of its lists, each within one of the list before."""
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
        """Note elements, and what a filter has left out of their lists: each needs an outcome."""
        held = {spot.pointer: spot for spot in spots if spot.position and spot.element is not None}
        around = {at: spot for spot in held.values() for at in pointers_around(spot.pointer)}
        self._divide(around, held if is_last else {}, passed=held.keys() | around.keys())
        self.owners.update(held)
        for pointer, spot in held.items() if is_last else ():
            self.spots.setdefault(pointer, spot)

    def _divide(self, lists: Mapping[str, Spot], held: Mapping[str, Spot], *, passed: Collection[str] = ()) -> None:
        """Note all that stands in lists, as held or like an element; what is passed is not, or stands around others."""
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
        """Return the elements that an `each` finds in another one; an object counts as a list of it."""
        self.enter(spot)
        path = f"{spot.path}{each.path}"
        try:
            found = None if spot.element is None else self._scope.evaluate(each, spot.element)
        except UnfitError:
            # As nothing, all elements would be one.
            self.lost = self.lost or path
            return []
        if isinstance(found, dict):
            found, places = [found], [self._place(found)]
        elif isinstance(found, str | Real) or type(found) is int:
            found, places = [found], [*self.read_pointers(found)] if len(self.read_pointers(found)) == 1 else [None]
        elif isinstance(found, list):
            if len(found) == 1 and found[0] is self.body.element:
                return [self.body]
            path = f"{path}/*"
            places = self._places(found, spot)
        else:
            return []
        is_lost = any(at is None and element is not None for element, at in zip(found, places, strict=True))
        if is_lost or (found and self._folded and self._folded.ambiguous & each.names):
            if len(self._pointers) >= PLACES_MAX:
                raise ExhaustedError
            self.lost = self.lost or path
        if not found:
            # A filter may have left all out.
            lists = {self._place(node): node for node in self._lists_read(spot)}
            outer = {at for at in lists if at is not None and lists.keys().isdisjoint(pointers_around(at))}
            self._divide({at: Spot(None, path, at, 0, spot.element, spot.path) for at in outer}, {})
        return [
            Spot(element, path, at or "", number, spot.element, spot.path)
            for number, (element, at) in enumerate(zip(found, places, strict=True), 1)
        ]

    def _lists_read(self, spot: Spot) -> list[list[object]]:
        """Return the lists that the last expression has read, or was searched in."""
        return [node for node in (*self._scope.read.values(), spot.element) if isinstance(node, list)]

    def _place(self, node: object) -> str | None:
        """Return the pointer of an object or list in the body; None for what an expression has made."""
        return (self._pointers or self._find_pointers()).get(id(node))

    def _places(self, found: list[object], spot: Spot) -> list[str | None]:
        """Return the pointers of the elements that an expression has found in the body."""
        if (at := self._place(found)) is not None:
            return [f"{at}/{number}" for number in range(len(found))]
        # Texts and numbers are looked for where the expression was, in their order.
        lists = self._lists_read(spot)
        items = ((f"{self._place(node)}/{number}", item) for node in lists for number, item in enumerate(node))
        return [
            self._place(node) if type(node) in _NESTED else next((at for at, item in items if item is node), None)
            for node in found
        ]

    def enter(self, spot: Spot) -> None:
        """Have expressions evaluated in an element."""
        self._scope.element, self._scope.parent, self.parent_path = spot.element, spot.parent, spot.parent_path
        if type(spot.element) not in _NESTED:
            # Two of them may be one object of Python, within different parents.
            self._scope.named.clear()

    def _find_pointers(self) -> dict[int, str]:
        """Return the pointers of the body's objects and lists by their identities, of the first `PLACES_MAX`."""
        nodes = [(self.body.element, self._base)]
        for node, pointer in nodes:
            self._pointers[id(node)] = pointer
            self._nodes[pointer] = node
            for name, child in children(node):
                if type(child) in _NESTED and len(nodes) < PLACES_MAX:
                    nodes.append((child, f"{pointer}/{escaped(self.written(id(node), name))}"))
        return self._pointers

    def read_pointers(self, value: object) -> frozenset[str]:
        """Return the members that the last expression read; an object counts only as the whole value."""
        places = [
            place
            for place, item in self._scope.read.items()
            if item is not None and (item is value or type(item) not in _NESTED)
        ]
        if not places:
            return _NOTHING
        pointers = self._pointers or self._find_pointers()
        return frozenset(
            f"{pointers[owner]}/{escaped(self.written(owner, name))}" for owner, name in places if owner in pointers
        )

    def written(self, owner: int, name: str) -> str:
        """Return a name as it is spelled in the body, in the object of this identity."""
        return self._folded.spelled.get(owner, {}).get(name, name) if self._folded else name
