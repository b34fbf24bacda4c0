"""Profiles that are mapping files: those of vendors that ship, and any other file that an option names.

`mapping_file.py` defines and checks the format. A file belongs to a deployment and is never reloaded. The hash of a
file that an option names is recorded with each of its events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from hashlib import sha256
from itertools import chain, count
from math import isfinite
from pathlib import Path
from re import compile as pattern
from typing import Any, NamedTuple, cast

from bridge.contract.events import OTHER_REPORTED, is_reported_type
from bridge.errors import ConfigError
from bridge.event import Delivery, ParkReason
from bridge.mapping.assemble import Draft, Part, Reading, children, compose, escaped
from bridge.mapping.json_body import Real
from bridge.mapping.keys import OUR_PREFIXES
from bridge.mapping.mapped_functions import ExhaustedError, Expression, Scope, UnfitError
from bridge.mapping.mapping_file import FILE_MAX_BYTES, CompiledFile, EventRule, Pointer
from bridge.mapping.profile import IGNORED, Mapped, refuse_unknown
from bridge.mapping.readers import text_of_id
from bridge.mapping.values import instant_of_epoch
from bridge.mapping.words import instant_of, is_given, key_of, prefix_of, zone_of

# Steps that an event costs beside its expressions: some 20 microseconds to assemble it.
EVENT_STEPS = 40
# Objects and lists of a body whose members count as read, half a microsecond each; those of any other are kept as well.
PLACES_MAX = 20_000

_NESTED = (dict, list)
_NOTHING: frozenset[str] = frozenset()
_ID = pattern(r"[!-~]{1,200}")
_NATIVE_KEY = pattern(r"[A-Za-z0-9._:-]{1,128}")


def configure(options: Mapping[str, str]) -> "MappingFile":
    """Build the profile `mapped`; a `ConfigError` names the file and the place in it."""
    prefix_of(options)
    name = options.get("mapping", "")
    if not name:
        raise ConfigError("options.mapping is required: the path of a mapping file")
    try:
        with Path(name).open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except OSError:
        raise ConfigError(f"options.mapping: cannot read {name}") from None
    try:
        return compile_mapping(content, name, options)
    except ConfigError as exc:
        if str(exc).startswith("options."):
            raise
        raise ConfigError(f"options.mapping: {exc}") from None


@dataclass(frozen=True, slots=True)
class Vendor:
    """The profile of a vendor whose mapping file ships."""

    name: str

    def configure(self, options: Mapping[str, str]) -> "MappingFile":
        """Build the profile; `ConfigError` for an option that is unknown, missing, or cannot be used."""
        file = Path(__file__).with_name(f"{self.name}.toml")
        # Part of the release, whose version identifies the file.
        return replace(compile_mapping(file.read_bytes(), file.name, options, names_file=False), mark="")


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A compiled file: the profile of the sources that name it."""

    file: CompiledFile
    sha256: str  # hex digest of the file
    mark: str  # identifies the file in events: the beginning of `sha256`, or empty
    PREFIX: str  # beginning of all keys; empty for native ids. Names in capitals are those of `Profile`.
    account_id: str
    zone: tzinfo | None
    ignore: frozenset[str]  # types of bodies that are ignored, in the vendor's words
    ARRAYS: bool
    BUCKET_S: int
    CONTENT_TYPES: tuple[str, ...]
    prefixes: tuple[str, ...] = ()

    def refusing(self, prefixes: tuple[str, ...]) -> "MappingFile":
        """Return the same profile, which refuses native ids with one of `prefixes`."""
        return replace(self, prefixes=prefixes)

    def ignoring(self, words: frozenset[str]) -> "MappingFile | None":
        """Return the same profile, which ignores bodies of these types; None if the file has no `reported`."""
        return replace(self, ignore=self.ignore | words) if self.file.reported else None

    def map(self, delivery: Delivery, document: object, /) -> Mapped | ParkReason:
        """Turn a body into the events of all tables that hold; see `Profile.map`."""
        run = Run(self, delivery, document)
        try:
            if self.ignore and text_of_id(run.word()) in self.ignore:
                return IGNORED
            park = run.choose() or run.read_tables()
            run.drop(document)
        except ExhaustedError:
            return ParkReason("unusable", "out_of_range")
        if park is not None:
            return park
        return compose(delivery, document, run.drafts, run.reading, key=run.drafts[0].key)


def compile_mapping(content: bytes, name: str, options: Mapping[str, str], *, names_file: bool = True) -> MappingFile:
    """Compile a file that messages call `name`; a `ConfigError` begins with that and the place, or with the option."""
    file = CompiledFile(content, name, options)
    document = file.document
    named = ("mapping",) if names_file else ()
    refuse_unknown(options, *named, "account_id", "zone", "prefix", *document.option_tables)
    prefix_of(options)
    digest = sha256(content).hexdigest()

    try:
        zone = zone_of(options, document.zone)
    except ConfigError as exc:
        if "zone" in options:
            raise
        raise ConfigError(f"{name}: zone: {str(exc).removeprefix('options.zone: ')}") from None
    return MappingFile(
        file,
        sha256=digest,
        mark=digest[:12],
        PREFIX=file.prefix,
        account_id=options.get("account_id", ""),
        zone=zone,
        ignore=frozenset(document.ignore),
        ARRAYS=document.arrays or document.array is not None,
        BUCKET_S=document.bucket_s,
        CONTENT_TYPES=tuple(each.lower() for each in document.content_types),
    )


def moment_of(value: object, scope: Scope) -> datetime | None:
    """Read a text or a number as an instant, None where there is nothing; `ValueError`, `OverflowError`: it is none."""
    if not is_given(value):
        return None
    if type(value) is str:
        return instant_of(value, scope.zone, scope.flags)
    if type(value) is int or type(value) is Real:
        return instant_of_epoch(value.lexeme if isinstance(value, Real) else str(value), scope.flags)
    raise ValueError


class Folded:
    """A copy of a document with folded names; of two spellings of a name, the first with a value counts."""

    def __init__(self, document: object) -> None:
        # Identity of a folded object -> folded name -> the name as it is written, where that differs.
        self.spelled: dict[int, dict[str, str]] = {}
        self.is_ambiguous = False  # there are two spellings of a name
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
                self.is_ambiguous = True
            counts = plain not in given and is_given(child)
            if counts or plain not in names:
                names[plain] = name
            if counts:
                given.add(plain)
        out = {plain: self._fold(node[name]) for plain, name in names.items()}
        self.spelled[id(out)] = {plain: name for plain, name in names.items() if plain != name}
        return out


class _Spot(NamedTuple):
    """Where a table is evaluated: an element, its path without positions, and the object that its list stands in."""

    element: object
    path: str
    parent: object = None
    parent_path: str = ""


class Run:
    """The evaluation of all tables for one body."""

    def __init__(self, mapping: MappingFile, delivery: Delivery, document: object) -> None:
        self.mapping, self._file = mapping, mapping.file
        self.drafts: list[Draft] = []  # its events so far
        self._folded = Folded(document) if mapping.file.any_case else None
        self._root: Any = self._folded.document if self._folded else document
        self._base = self._path = ""  # of the root in the body: its pointer, and that without positions
        self.scope = Scope(self._root, mapping.zone, prefix=mapping.PREFIX)
        # What the drafts have in common.
        self.reading = Reading(id=delivery.id, time=delivery.received_at, flags=self.scope.flags)
        if mapping.file.drops:
            self.reading.drops = mapping.file.drops
        if self._folded is not None and self._folded.is_ambiguous:
            self.scope.flags.add("name_ambiguous")
        self._numbers: set[str] = set()
        self._nowhere = ""  # path at which `each` has found nothing
        self._is_evaluated = False  # a table, for an element or for the body
        self._parent_path = ""  # as `_path`, for the object called `parent`
        self._pointers: dict[int, str] = {}  # identity of an object or list in the body -> its pointer
        self._claims: list[Sequence[Pointer]] = [self._file.claims]  # of the file, then of tables with events

    def choose(self) -> ParkReason | None:
        """Select the best line of a prescription as the body; return why the delivery is parked if there is none."""
        lines = self._root
        if not self._file.best or not isinstance(lines, list):
            return None
        self._path = "/*"
        at = f"/*{self._file.key[-1].path}"
        noted = set(self.scope.flags)
        keys = {self._keyed(line) for line in lines if isinstance(line, dict)}
        if not lines:
            return ParkReason("unusable", "no_key", at)
        if len(keys) > 1 or not all(isinstance(line, dict) for line in lines):
            return ParkReason("unusable", "wrong_type", at)
        chosen = max(range(len(lines)), key=lambda index: [self._rank(each, lines[index]) for each in self._file.best])
        # Drop the flags that comparing the lines has raised.
        self.scope.flags.intersection_update(noted)
        if len(lines) > 1:
            self.scope.flags.add("array_chosen")
        self._base = f"/{chosen}"
        self._root = self.scope.root = lines[chosen]
        return None

    def _keyed(self, line: object) -> str | ParkReason:
        self.scope.root = self.scope.element = line
        return self._key(self._file.key, line, self._path)

    def _rank(self, expression: Expression, line: object) -> tuple[int, float, str]:
        """Sort null before booleans and numbers, and these before texts."""
        self.scope.root = self.scope.element = line
        value = self._value(expression, line)
        if isinstance(value, Real):
            return 1, float(value.lexeme), ""
        if isinstance(value, int):
            return 1, value, ""
        return (2, 0, value) if isinstance(value, str) else (0, 0, "")

    def word(self) -> object:
        """Return the vendor's type of the body."""
        self.scope.element = self._root
        return None if self._file.reported is None else self._value(self._file.reported, self._root)

    def read_tables(self) -> ParkReason | None:
        """Draft an event for each table and element whose `when` holds; return why the delivery is parked, if it is."""
        park: ParkReason | None = None
        for event in self._file.events:
            park = park or self._read_elements(event)
        if park is None and not self.drafts:
            park = self._read_other()
        for claim in chain.from_iterable(self._claims):
            if claim.last not in self._file.names:
                self.reading.claimed.update(self._scalars(claim))
        return park

    def _read_elements(self, event: EventRule) -> ParkReason | None:
        park: ParkReason | None = None
        for element, number, path in self._elements(event):
            park = park or self._read_table(event, element, number, path)
        return park

    def _read_other(self) -> ParkReason | None:
        """Draft `other.reported` for a body that no table matches, under its prescriptions or else the account."""
        other = self._file.other
        if other is None:
            return ParkReason("unknown_type", field="" if self._is_evaluated else self._nowhere)
        park = self._read_elements(other)
        if park or self.drafts:
            return park
        self.scope.element, self.scope.parent = self._root, None
        # The configured account comes first, so that all its updates have one key whatever the body names.
        account = self.mapping.account_id or self._text(other, "account", self._root)
        if not account:
            return ParkReason("unknown_type", field=self._reported_at())
        if not _NATIVE_KEY.fullmatch(account):
            return ParkReason("unusable", "bad_key", "/account")
        return self._add(other, account, self._root, other.name, self._path, of_account=True)

    def _elements(self, event: EventRule) -> Iterator[tuple[object, str, str]]:
        """Yield a table's elements, each with the end of its event's id and its path without positions."""
        level = [_Spot(self._root, self._path)]
        for each in event.each:
            before, level = level, [below for place in level for below in self._below(place, each)]
            if before and not level:
                self._nowhere = self._nowhere or f"{before[0].path}{each.path}"
        is_root = len(level) == 1 and level[0].element is self._root
        for position, place in enumerate(level, 1):
            self._enter(place)
            number = f"{position}.{event.name}" if event.is_named else str(position)
            yield place.element, event.name if is_root else number, place.path

    def _enter(self, place: _Spot) -> None:
        self.scope.element, self.scope.parent, self._parent_path = place.element, place.parent, place.parent_path

    def _below(self, place: _Spot, each: Expression) -> Iterator[_Spot]:
        self._enter(place)
        elements = self._value(each, place.element)
        path = f"{place.path}{each.path}/*" if each.path else place.path
        for element in elements if isinstance(elements, list) else ():
            if type(element) in _NESTED and element is not self._root and (pointer := self._pointer(element)):
                self.reading.lists.add(pointer.rpartition("/")[0])
            yield _Spot(element, path, place.element, place.path)

    def _find_pointers(self) -> dict[int, str]:
        """Return the pointers of the body's objects and lists by their identities, of the first `PLACES_MAX`."""
        nodes = [(self._root, self._base)]
        for node, pointer in nodes:
            self._pointers[id(node)] = pointer
            for name, child in children(node):
                if type(child) in _NESTED and len(nodes) < PLACES_MAX:
                    nodes.append((child, f"{pointer}/{escaped(self._written(id(node), name))}"))
        return self._pointers

    def _pointer(self, node: object) -> str:
        """Return the pointer of an object or list in the body; empty for the root, and for a value not in the body."""
        pointers = self._pointers or self._find_pointers()
        return "" if node is self._root else pointers.get(id(node), "")

    def _reported_at(self) -> str:
        self.word()
        return "" if self._file.reported is None else self._at(self._file.reported, self._path)

    def drop(self, document: object) -> None:
        """Note the members that the file drops, in every spelling in the body."""
        ways = [(*drop.way, drop.last) for drop in self._file.drop]
        if self._path:
            ways = [("*", *way) for way in ways]
        self.reading.dropped.update(self._spellings(document, "", ways) if ways else ())

    def _read_table(self, event: EventRule, element: object, number: str, path: str) -> ParkReason | None:
        scope = self.scope
        scope.spend(1)
        self._is_evaluated = True
        holds = True if event.when is None else self._value(event.when, element)
        if holds is None or holds is False or holds in ("", [], {}):
            return None
        claimed = set(self._read_pointers(holds)) if event.when and holds is True else set()
        scope.spend(EVENT_STEPS)
        key = self._key(event.key, element, path, claimed)
        if event.park:
            park = event.park
            return ParkReason(park.reason, park.detail, park.field, key if isinstance(key, str) else None)
        if isinstance(key, ParkReason):
            # Without a prescription it may be an update of the account, which `_read_other` tries.
            return None if event.type == OTHER_REPORTED else key
        self.reading.claimed |= claimed
        return self._add(event, key, element, number, path)

    def _add(
        self, event: EventRule, key: str, element: object, number: str, path: str, *, of_account: bool = False
    ) -> ParkReason | None:
        """Draft an event; return why the delivery is parked, if it is."""
        # No slash in it: the last slash of an event's id must be the one behind the vendor's id, which may have some.
        choices = chain((number, f"{number}.{event.name}"), (f"{number}.{again}" for again in count(2)))
        number = next(each for each in choices if each not in self._numbers)
        self._numbers.add(number)
        at = self._pointer(element) if self.reading.lists else ""
        draft = Draft(event.type, number, key, constants=event.constants, mapping=self.mapping.mark, at=at)
        finished: dict[str, object] = dict(event.finished)
        if event.type == OTHER_REPORTED:
            finished["reported_type"] = word = self.word()
            self._claim()
            self.scope.element = element
            if not is_reported_type(word):
                return ParkReason("unknown_type", field=self._reported_at(), key=None if of_account else key)
        if of_account:
            finished["prescription_id"] = None
        draft.finished = finished
        park = self._leading(event, draft, element, path)
        self._read_data(event, draft, element, path)
        self.drafts.append(draft)
        if event.claims not in self._claims:
            self._claims.append(event.claims)
        return park

    def _read_data(self, event: EventRule, draft: Draft, element: object, path: str) -> None:
        """Read the fields of the record into the draft."""
        for name, expression in event.data.items():
            value = self._value(expression, element)
            if value is not None or name in event.required or "." in name:
                at = self._at(expression, path) or f"/{name.replace('.', '/')}"
                draft.parts[name] = Part(value, at, self._read_pointers(value))

    def _value(self, expression: Expression, element: object) -> object:
        """Evaluate an expression; None if a value does not fit."""
        try:
            value = self.scope.evaluate(expression, element)
        except UnfitError:
            self.scope.flags.add("field_unfit")
            self.scope.read = {}
            return None
        # Functions of JMESPath return floats; NaN and infinity count as null.
        return (Real(repr(value)) if isfinite(value) else None) if isinstance(value, float) else value

    def _at(self, expression: Expression, path: str) -> str:
        """Return the path of the member that an expression has just read, or reads first; empty if it reads none."""
        read = [
            name for (_, name), value in self.scope.read.items() if value is not None and type(value) not in _NESTED
        ]
        at = expression.paths.get(read[0], expression.path) if len(read) == 1 else expression.path
        for name, base in (("root", self._path), ("parent", self._parent_path)):
            if at.startswith(f"/{name}/") and self.scope.around(name, self.scope.element) is not None:
                return base + at[len(name) + 1 :]
        return path + at if at else ""

    def _read_pointers(self, value: object) -> frozenset[str]:
        """Return the members that the last expression read; an object counts only as the whole value."""
        places = [
            place
            for place, item in self.scope.read.items()
            if item is not None and (item is value or type(item) not in _NESTED)
        ]
        if not places:
            return _NOTHING
        pointers = self._pointers or self._find_pointers()
        return frozenset(
            f"{pointers[owner]}/{escaped(self._written(owner, name))}" for owner, name in places if owner in pointers
        )

    def _key(
        self, parts: Sequence[Expression], element: object, path: str, claimed: set[str] | None = None
    ) -> str | ParkReason:
        """Build a key, and add the pointers of the members read for it to `claimed`."""
        values: list[Any] = []
        at = "/key"
        general_at = ""
        for expression in parts:
            value = self._value(expression, element)
            general_at, at = (general_at or at) if values else "", self._at(expression, path) or "/key"
            if claimed is not None:
                claimed.update(self._read_pointers(None))
            # A list in the expression gives several parts. All but the last may be null, such as a store.
            is_several = expression.node["type"] == "multi_select_list" and isinstance(value, list)
            values += cast("list[Any]", value) if is_several else [None if value == [] else value]
        special = values[-1] if values else None
        if not is_given(special):
            return ParkReason("unusable", "no_key", at)
        general = [value for value in values[:-1] if is_given(value)]
        if self.mapping.PREFIX:
            key = key_of(self.mapping.PREFIX, *general, special)
            is_general = general_at and general and key_of(self.mapping.PREFIX, special) is not None
            return key or ParkReason("unusable", "bad_key", general_at if is_general else at)
        text = None if general else text_of_id(special)
        if text is None or not _NATIVE_KEY.fullmatch(text) or text.startswith(OUR_PREFIXES + self.mapping.prefixes):
            return ParkReason("unusable", "bad_key", at)
        return text

    def _leading(self, event: EventRule, draft: Draft, element: object, path: str) -> ParkReason | None:
        """Read id, time, account and correlation into the draft; return why it is parked if it has no account."""
        park = None
        finished = dict(draft.finished)
        if (text := self._text(event, "id", element)) is not None:
            if _ID.fullmatch(text):
                draft.id = text
                self._claim()
            else:
                self.scope.flags.add("field_unfit")
        self._time(event, draft, element)
        # For an event about the account, the configured account is also the key.
        is_key = "prescription_id" in finished and bool(self.mapping.account_id)
        account = None if is_key else self._text(event, "account", element)
        if account:
            self._claim()
        elif not self.mapping.account_id:
            at = self._at(event.leading["account"], path) or "/account"
            park = ParkReason("unusable", "missing_field", at, draft.key)
        finished["account_id"] = account or self.mapping.account_id
        if correlation := self._text(event, "correlation", element):
            self._claim()
            finished["correlation_id"] = correlation
        draft.finished = finished
        return park

    def _text(self, event: EventRule, name: str, element: object) -> str | None:
        expression = event.leading.get(name)
        if expression is None:
            self.scope.read = {}
            return None
        value = self._value(expression, element)
        text = text_of_id(value)
        if value is not None and text is None:
            self.scope.flags.add("field_unfit")
        return text

    def _claim(self) -> None:
        self.reading.claimed.update(self._read_pointers(None))

    def _time(self, event: EventRule, draft: Draft, element: object) -> None:
        expression = event.leading.get("time")
        value = None if expression is None else self._value(expression, element)
        try:
            draft.time = moment_of(value, self.scope)
        except (ValueError, OverflowError):
            self.scope.flags.add("field_unfit")
        if draft.time is None:
            self.scope.flags.add("time_of_receipt")
        else:
            self._claim()
        self.scope.time = draft.time or self.reading.time

    def _scalars(self, claim: Pointer) -> Iterator[str]:
        """Yield the pointers in the body of what is no list or object at a pointer with `*`."""
        level: list[tuple[object, str]] = [(self._root, self._base)]
        for step in (*claim.way, claim.last):
            level = [found for node, pointer in level for found in self._step(node, pointer, step)]
        yield from (pointer for node, pointer in level if type(node) not in _NESTED)

    def _spellings(self, node: object, pointer: str, ways: Sequence[tuple[str, ...]]) -> Iterator[str]:
        """Find members in the body as sent, since the folded document has only one of two spellings of a name."""
        self.scope.spend(len(ways))
        below: dict[str, list[tuple[str, ...]]] = {}
        for step, *rest in ways:
            below.setdefault(step, []).append(tuple(rest))
        any_index = below.get("*", []) if isinstance(node, list) else []
        for name, child in children(node):
            found = below.get(name.casefold() if self._folded else name, []) + any_index
            at = f"{pointer}/{escaped(name)}"
            if () in found:
                yield at
            elif found:
                yield from self._spellings(child, at, found)

    def _step(self, node: object, pointer: str, step: str) -> Iterator[tuple[object, str]]:
        for name in self._names(node, step):
            child = node[int(name)] if isinstance(node, list) else cast("dict[str, object]", node)[name]
            yield child, f"{pointer}/{escaped(self._written(id(node), name))}"

    def _written(self, owner: int, name: str) -> str:
        """Return a name as it is spelled in the body, in the object of this identity."""
        return self._folded.spelled.get(owner, {}).get(name, name) if self._folded else name

    def _names(self, node: object, step: str) -> list[str]:
        if isinstance(node, list):
            self.scope.spend(1)
            if step == "*":
                self.scope.spend(len(node))
                return [str(index) for index in range(len(node))]
            return [step] if step.isdecimal() and len(step) <= len(str(len(node))) and int(step) < len(node) else []
        return [step] if isinstance(node, dict) and step in node else []
