"""Profiles defined by mapping files: shipped ones of vendors, and files named by an option.

`mapping_file.py` defines and checks the format. A file belongs to a deployment and is never reloaded. For a file named
by an option, its hash is recorded with each of its events.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import partial
from hashlib import sha256
from itertools import chain, count
from math import isfinite
from pathlib import Path
from re import compile as pattern
from typing import Any, cast

import orjson

from bridge.contract.events import OTHER_REPORTED, is_reported_type
from bridge.errors import ConfigError
from bridge.event import Delivery, ParkReason
from bridge.mapping.assemble import Draft, Part, Reading, children, compose, escaped, steps_of
from bridge.mapping.elements import PLACES_MAX, Elements, Folded, Spot
from bridge.mapping.json_body import Real, parse, parse_form, parse_wrapped, to_json_text
from bridge.mapping.mapped_functions import ExhaustedError, Expression, Scope, UnfitError
from bridge.mapping.mapping_file import FILE_MAX_BYTES, CompiledFile, EventRule, Pointer
from bridge.mapping.profile import IGNORED, Mapped, refuse_unknown
from bridge.mapping.readers import text_of_id
from bridge.mapping.record_keys import OUR_PREFIXES
from bridge.mapping.values import instant_of_epoch
from bridge.mapping.words import instant_of, is_given, key_of, prefix_of, zone_of

# Budget steps per event besides its expressions: assembling it takes some 20 microseconds.
EVENT_STEPS = 40

_NESTED = (dict, list)
_NOTHING: frozenset[str] = frozenset()
_ID = pattern(r"[!-~]{1,200}")
_NATIVE_KEY = pattern(r"[A-Za-z0-9._:-]{1,128}")


def configure(options: Mapping[str, str]) -> "MappingFile":
    """Build the profile `mapped`; `ConfigError` names the file and the key in it."""
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
    """The profile of a vendor whose mapping file is shipped."""

    name: str

    def configure(self, options: Mapping[str, str]) -> "MappingFile":
        """Build the profile; `ConfigError` for an unknown, missing or invalid option."""
        file = Path(__file__).with_name(f"{self.name}.toml")
        # No hash: the file is part of the release.
        return replace(compile_mapping(file.read_bytes(), file.name, options, names_file=False), mark="")


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A compiled mapping file: the profile of the sources that name it."""

    file: CompiledFile
    sha256: str  # hex digest of the file
    mark: str  # identifies the file in events: the first digits of `sha256`, or empty
    PREFIX: str  # prefix of all keys; empty for native ids. Names in capitals are defined by `Profile`.
    account_id: str
    zone: tzinfo | None
    ignore: frozenset[str]  # the vendor's names of types to ignore, unless a table matches
    BUCKET_S: int
    CONTENT_TYPES: tuple[str, ...]
    parse: Callable[[bytes], object]
    prefixes: tuple[str, ...] = ()

    def reading_xml(self) -> "MappingFile":
        """Return the profile for XML bodies; `ConfigError` if the extra for XML is not installed."""
        try:
            from bridge.mapping import xml_body  # noqa: PLC0415 - an extra, loaded only if used
        except ImportError:
            raise ConfigError("xml needs the extra of that name: pip install drx-bridge[xml]") from None
        types = ("application/xml", "text/xml", "+xml", *self.CONTENT_TYPES)
        return replace(self, parse=xml_body.parse, CONTENT_TYPES=types)

    def refusing(self, prefixes: tuple[str, ...]) -> "MappingFile":
        """Return the profile that refuses native ids with one of `prefixes`."""
        return replace(self, prefixes=prefixes)

    def ignoring(self, words: frozenset[str]) -> "MappingFile | None":
        """Return the profile that ignores bodies of these types; None if the file has no `reported`."""
        return replace(self, ignore=self.ignore | words) if self.file.reported else None

    def map(self, delivery: Delivery, document: object, /) -> Mapped | ParkReason:
        """Map a body to the events of all matching tables; see `Profile.map`."""
        return self.run(delivery, document).outcome

    def run(self, delivery: Delivery, document: object) -> "Run":
        """Evaluate all tables for a body; the run's `outcome` is the result of `map`."""
        run = Run(self, delivery, document)
        try:
            park = run.choose() or run.read_tables()
            run.drop(document)
        except ExhaustedError:
            park = ParkReason("unusable", "out_of_range")
        if park is not None:
            run.outcome = park
        elif run.drafts:
            run.outcome = compose(delivery, document, run.drafts, run.reading, key=run.drafts[0].key)
        return run


def compile_mapping(content: bytes, name: str, options: Mapping[str, str], *, names_file: bool = True) -> MappingFile:
    """Compile a file; `ConfigError` messages begin with `name` and the key in the file, or with the option."""
    file = CompiledFile(content, name, options)
    document = file.document
    named = ("mapping",) if names_file else ()
    refuse_unknown(options, *named, "account_id", "zone", "prefix", *document.option_tables)
    prefix_of(options)
    digest = sha256(content).hexdigest()
    try:
        zone = zone_of(options, document.zone)
    except ConfigError as exc:
        raise exc if "zone" in options else ConfigError(f"{name}: {exc}") from None
    types = document.content_types
    read: Callable[[bytes], object] = partial(parse, arrays=document.arrays or document.array is not None)
    if document.form:
        types = [*types, "application/x-www-form-urlencoded"]
        read = partial(parse_form, field=document.form, read=read)
    if document.base64:
        read = partial(parse_wrapped, read=read, pointer=steps_of(document.base64))
    return MappingFile(
        file,
        sha256=digest,
        mark=digest[:12],
        PREFIX=file.prefix,
        account_id=options.get("account_id", ""),
        zone=zone,
        ignore=frozenset(document.ignore),
        BUCKET_S=document.bucket_s,
        CONTENT_TYPES=tuple(each.lower() for each in types),
        parse=read,
    )


def moment_of(value: object, scope: Scope) -> datetime | None:
    """Read a string or number as an instant, None if empty; raises `ValueError` or `OverflowError` if it is not one."""
    if not is_given(value):
        return None
    if type(value) is str:
        return instant_of(value, scope.zone, scope.flags)
    if type(value) is int or type(value) is Real:
        return instant_of_epoch(to_json_text(value), scope.flags)
    raise ValueError


def _index(step: str) -> int:
    return int(step) if step.isdecimal() and len(step) <= len(str(PLACES_MAX)) else 0


def _digest(*parts: object) -> str:
    """Return the hex SHA-256 of parts, independent of the order and spacing of members."""
    content = orjson.dumps(parts, default=lambda real: orjson.Fragment(real.lexeme), option=orjson.OPT_SORT_KEYS)
    return sha256(content).hexdigest()


class Run:
    """The evaluation of all tables for one body."""

    def __init__(self, mapping: MappingFile, delivery: Delivery, document: object) -> None:
        self.mapping, self._file = mapping, mapping.file
        self.outcome: Mapped | ParkReason = IGNORED
        self.drafts: list[Draft] = []  # events drafted up to now
        self.matched: list[tuple[EventRule, Draft | None]] = []  # tables whose `when` matched; None if it parks
        self.unmapped: list[str] = []  # paths of elements because of which the delivery is parked
        self.ignored = 0  # elements to skip
        self._folded = Folded(document) if mapping.file.any_case else None
        self._root: Any = self._folded.document if self._folded else document
        self._base = self._path = ""  # pointer of the root in the body, and the same without positions
        self.scope = Scope(self._root, mapping.zone, prefix=mapping.PREFIX)
        # Values shared by the drafts.
        self.reading = Reading(id=delivery.id, time=delivery.received_at, flags=self.scope.flags)
        if mapping.file.drops:
            self.reading.drops = mapping.file.drops
        if self._folded is not None and self._folded.ambiguous:
            self.scope.flags.add("name_ambiguous")
        self._elements = Elements(self._root, self.scope, folded=self._folded)
        self._decided: set[str] = set()  # pointers of elements with an event, and of everything that encloses them
        self._ids: dict[str, tuple[Draft, EventRule]] = {}  # draft and table by event id
        self._is_evaluated = False  # table and the spot it was evaluated for
        self._claims: list[Sequence[Pointer]] = [self._file.claims]  # of the file, then of tables that made events

    def choose(self) -> ParkReason | None:
        """Select the best line of a prescription as the body; return the reason to park if there is none."""
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
        # Drop leniency flags raised by comparing the lines.
        self.scope.flags.intersection_update(noted)
        if len(lines) > 1:
            self.scope.flags.add("array_chosen")
        self._base = f"/{chosen}"
        self._root = self.scope.root = lines[chosen]
        self._elements = Elements(self._root, self.scope, folded=self._folded, base=self._base, path=self._path)
        return None

    def _keyed(self, line: object) -> str | ParkReason:
        self.scope.root = self.scope.element = line
        return self._key(self._file.key, line, self._path)

    def _rank(self, expression: Expression, line: object) -> tuple[int, float, str]:
        """Return a sort key: null before booleans and numbers, and these before strings."""
        self.scope.root = self.scope.element = line
        value = self._value(expression, line)
        if isinstance(value, Real):
            return 1, float(value.lexeme), ""
        if isinstance(value, int):
            return 1, value, ""
        return (2, 0, value) if isinstance(value, str) else (0, 0, "")

    def read_tables(self) -> ParkReason | None:
        """Draft the events of each element, or of the body; return the reason to park, if any."""
        tables = [(event, self._elements.find(event.each)) for event in self._file.events]
        if self._file.other is not None:
            self._elements.find(self._file.other.each)
        self.reading.elements = self._elements.owners
        if self._elements.lost:
            return ParkReason("unusable", "wrong_type", self._elements.lost)
        elements = list(self._elements.spots.values()) or [self._elements.body]
        park: ParkReason | None = None
        for event, spots in tables:
            for spot in spots:
                park = park or self._read_table(event, spot)
        if park is None:
            for spot in elements:
                if (found := self._read_other(spot)) is not None:
                    self.unmapped.append(spot.path)
                    park = park or found
        # In the order of the body; within one element, in the order of the tables.
        self.drafts.sort(key=lambda draft: [_index(step) for step in draft.at.split("/")[1:]])
        claims = [claim for claim in chain.from_iterable(self._claims) if claim[-1] not in self._file.names]
        members = self._found(self._root, self._base, claims)
        self.reading.claimed.update(at for at, member in members if type(member) not in _NESTED)
        return park

    def _reported_type(self, spot: Spot) -> tuple[object, Spot]:
        """Return the vendor's type of an element, else of the body, and where it was read; or the event it repeats."""
        reported = None
        if self._file.reported is not None:
            for of in (spot, self._elements.body):
                self._elements.enter(of)
                reported = self._value(self._file.reported, of.element)
                if reported is False and not any(each is False for each in self.scope.read.values()):
                    # So says the file, not the sender: the element repeats the event of the body.
                    if event := next((draft for draft in self.drafts if not draft.at), None):
                        return event, of
                    continue
                if reported is not None and not (isinstance(reported, str) and not reported.strip()):
                    return reported, of
        return reported, spot

    def _needs_no_event(self, spot: Spot, reported: object) -> bool:
        """Return whether a body or element has no event: it is ignored, repeats the body's, or is an empty batch."""
        if isinstance(reported, Draft):
            reported.repeated_by.append(spot.pointer)
            return True
        if text_of_id(reported) in self.mapping.ignore:
            self.ignored += 1
            return True
        return self._elements.is_empty and not (spot.position or self._is_evaluated or is_given(reported))

    def _read_other(self, spot: Spot) -> ParkReason | None:
        """Draft `other.reported` for an element without an event, keyed by its prescription or else the account."""
        other = self._file.other
        if spot.pointer in self._decided:
            return None
        reported, of = self._reported_type(spot)
        if self._needs_no_event(spot, reported):
            return None
        if other is None or self._file.reported is None:
            is_known = spot.position or self._is_evaluated
            return ParkReason("unknown_type", field=spot.empty or (spot.path if is_known else self._elements.nowhere))
        at = self._at(self._file.reported, of.path)
        claimed, for_key = set(self._elements.read_pointers(None) if of is spot else _NOTHING), set[str]()
        self._elements.enter(spot)
        key = self._key(other.key, spot.element, spot.path, for_key)
        account = ""
        if isinstance(key, str):
            claimed |= for_key
        elif key.detail == "no_key":
            self._elements.enter(self._elements.body)
            key = self._key(other.key, self._root, self._path)
        if isinstance(key, ParkReason):
            # docs/contract.md §3: the configured account takes precedence, so that all its updates have one key.
            key = account = self.mapping.account_id or self._account(other, spot) or ""
            if account and not _NATIVE_KEY.fullmatch(account):
                return ParkReason("unusable", "bad_key", "/account")
        if not key or not is_reported_type(reported):
            return ParkReason("unknown_type", field=at, key=None if account == key else key)
        self.reading.claimed |= claimed
        return self._add(other, key, spot, reported=reported, account=account)

    def _account(self, event: EventRule, spot: Spot) -> str | None:
        """Read the account of an element, or the body's for `other.reported`."""
        self._elements.enter(spot)
        text = self._text(event, "account", spot.element)
        if text:
            self._claim()
        elif event is self._file.other:
            self._elements.enter(self._elements.body)
            text = self._text(event, "account", self._root)
            self._elements.enter(spot)
        return text

    def drop(self, document: object) -> None:
        """Note the members that the file drops, in all spellings of the body."""
        ways = [["*", *drop] if self._path else drop for drop in self._file.drop]
        self.reading.dropped.update(at for at, _ in self._found(document, "", ways))

    def _read_table(self, event: EventRule, spot: Spot) -> ParkReason | None:
        scope, element = self.scope, spot.element
        scope.spend(1)
        self._is_evaluated = True
        self._elements.enter(spot)
        condition = True if event.when is None else self._value(event.when, element)
        if condition is None or condition is False or condition in ("", [], {}):
            return None
        claimed = set(self._elements.read_pointers(condition)) if event.when and condition is True else set()
        scope.spend(EVENT_STEPS)
        key = self._key(event.key, element, spot.path, claimed)
        if event.park:
            park = event.park
            self.matched.append((event, None))
            return ParkReason(park.reason, park.detail, park.field, key if isinstance(key, str) else None)
        if isinstance(key, ParkReason):
            # Without a prescription it may be an account's update: see `_read_other`.
            return None if event.type == OTHER_REPORTED else key
        reported = None
        if event.type == OTHER_REPORTED:
            reported, of = self._reported_type(spot)
            if not is_reported_type(reported):
                at = self._at(cast("Expression", self._file.reported), of.path)
                return ParkReason("unknown_type", field=at, key=key)
            if of is spot:
                self._claim()
            self._elements.enter(spot)
        self.reading.claimed |= claimed
        return self._add(event, key, spot, reported=reported)

    def _add(
        self, event: EventRule, key: str, spot: Spot, *, reported: object = None, account: str = ""
    ) -> ParkReason | None:
        """Draft an event, of `account` if it has no prescription; return the reason to park, if any."""
        self._elements.enter(spot)
        draft = Draft(event.type, "", key, constants=event.constants, mapping=self.mapping.mark, at=spot.pointer)
        finished: dict[str, object] = dict(event.finished)
        if event.type == OTHER_REPORTED:
            finished["reported_type"] = reported
        if account:
            finished |= {"prescription_id": None, "account_id": account}
        draft.finished = finished
        park = self._leading(event, draft, spot)
        self._decide(spot)
        if not self._name(event, draft, spot):
            return park
        self._read_data(event, draft, spot.element, spot.path)
        self.drafts.append(draft)
        self.matched.append((event, draft))
        if event.claims not in self._claims:
            self._claims.append(event.claims)
        return park

    def _decide(self, spot: Spot) -> None:
        """Note that an element has an event, and so everything that encloses it."""
        at = spot.pointer
        while at not in self._decided:
            self._decided.add(at)
            at = at.rpartition("/")[0] or spot.pointer

    def _name(self, event: EventRule, draft: Draft, spot: Spot) -> bool:
        """Number an event within its delivery; False if it is a duplicate, since an element was sent twice.

        The name has no slash: the last slash of an event id separates it from the vendor's id, which may have some.
        """
        first, ends = event.name, chain[object](count(2))
        if spot.position and not draft.sha256:
            position = str(spot.position) if spot.position > 0 else f"0.{-spot.position}"
            first = f"{position}.{event.name}" if event.is_named else position
            ends = chain((event.name,), ends)
        for draft.number in chain((first,), (f"{first}.{end}" for end in ends)):
            known = self._ids.setdefault(f"{draft.id or self.reading.id}/{draft.number}", (draft, event))
            if known[0] is draft:
                return True
            if draft.sha256 and known[0].sha256 == draft.sha256 and known[1] is event:
                return False
        return True

    def _read_data(self, event: EventRule, draft: Draft, element: object, path: str) -> None:
        """Read the fields of the record into the draft."""
        for name, expression in event.data.items():
            value = self._value(expression, element)
            if value is not None or name in event.required or "." in name:
                at = self._at(expression, path) or f"/{name.replace('.', '/')}"
                draft.parts[name] = Part(value, at, self._elements.read_pointers(value))

    def _value(self, expression: Expression, element: object) -> object:
        """Evaluate an expression; None if it fails on a value."""
        try:
            value = self.scope.evaluate(expression, element)
        except UnfitError:
            self.scope.flags.add("field_unfit")
            self.scope.read = {}
            return None
        # JMESPath functions return floats; NaN and infinity count as null.
        return (Real(repr(value)) if isfinite(value) else None) if isinstance(value, float) else value

    def _at(self, expression: Expression, path: str) -> str:
        """Return the path of the member that an expression just read, or would read first; empty if it reads none."""
        read = [
            name for (_, name), value in self.scope.read.items() if value is not None and type(value) not in _NESTED
        ]
        at = expression.paths.get(read[0], expression.path) if len(read) == 1 else expression.path
        for name, base in (("root", self._path), ("parent", self._elements.parent_path)):
            if at.startswith(f"/{name}/") and self.scope.around(name, self.scope.element) is not None:
                return base + at[len(name) + 1 :]
        return path + at if at else ""

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
                claimed.update(self._elements.read_pointers(None))
            # A list expression gives several parts. All but the last may be null, such as a store number.
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

    def _leading(self, event: EventRule, draft: Draft, spot: Spot) -> ParkReason | None:
        """Read id, time, account and correlation into the draft; return the reason to park if it has no account."""
        park, element = None, spot.element
        finished = dict(draft.finished)
        if (text := self._text(event, "id", element)) is not None:
            if _ID.fullmatch(text):
                draft.id = text
                if spot.position and self._is_own(spot):
                    # Key and type may come from enclosing elements: events of several prescriptions may share an id.
                    draft.sha256 = _digest(draft.key, finished.get("reported_type"), element)
                self._claim()
            else:
                self.scope.flags.add("field_unfit")
        self._time(event, draft, element)
        if "account_id" not in finished:
            account = finished["account_id"] = self._account(event, spot) or self.mapping.account_id
            if not account:
                at = self._at(event.leading["account"], spot.path) or "/account"
                park = ParkReason("unusable", "missing_field", at, draft.key)
        if correlation := self._text(event, "correlation", element):
            self._claim()
            finished["correlation_id"] = correlation
        draft.finished = finished
        return park

    def _is_own(self, spot: Spot) -> bool:
        """Return whether the last expression read from the element itself, not only from what encloses it."""
        reads = self._elements.read_pointers(None)
        return type(spot.element) not in _NESTED or any(at.startswith(f"{spot.pointer}/") for at in reads)

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
        self.reading.claimed.update(self._elements.read_pointers(None))

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

    def _found(self, node: object, pointer: str, ways: Iterable[Pointer]) -> Iterator[tuple[str, object]]:
        """Yield the members of a node, which is at `pointer`, that one of the ways leads to, in any spelling."""
        below: dict[str, list[Pointer]] = {}
        for step, *rest in ways:
            self.scope.spend(1)
            below.setdefault(step, []).append(rest)
        any_index = below.get("*", []) if isinstance(node, list) else []
        for name, child in children(node) if below else ():
            if found := below.get(name.casefold() if self._folded else name, []) + any_index:
                at = f"{pointer}/{escaped(self._elements.written(id(node), name))}"
                if [] in found:
                    yield at, child
                yield from self._found(child, at, filter(None, found))
