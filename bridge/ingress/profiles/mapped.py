r"""A vendor that no profile knows, by a mapping file: TOML whose expressions find events in a body.

    prefix = "acme:"                 # of the keys
    zone = "America/New_York"        # of times without one
    claims = ["/rx/id", "/state"]    # members that need not be kept once an event has read them
    drop = ["/patient/ssn"]          # members that are kept nowhere

    [[event]]                        # every one whose `when` holds, in this order; none: parked as unknown_type
    when = "kind == 'STATE'"
    type = "fulfillment.status_changed"
    key = "rx.id"
    [event.data]
    queue_id = "rx.id"
    fulfillment_status = "words(state, `{\"IN_WORK\": \"in_progress\", \"DONE\": \"packed\"}`)"

All is checked when the file is compiled, so that a mistake ends the start and not a delivery; the message names the
line. A file belongs to a deployment and is never loaded again. Its hash goes with each event that it made.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from hashlib import sha256
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast, get_args, get_origin

from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import UNKNOWN, Record, plain, raw_name, words_of
from bridge.errors import ConfigError
from bridge.event import Delivery, ParkReason
from bridge.ingress.json_body import Real
from bridge.ingress.profiles.assemble import PLANS, Draft, Reading, Said, children, compose, escaped
from bridge.ingress.profiles.keys import OUR_PREFIXES
from bridge.ingress.profiles.mapped_functions import (
    ExhaustedError,
    Expression,
    ExpressionError,
    Scope,
    UnfitError,
    compile_expression,
    targets,
)
from bridge.ingress.profiles.plan import Members, Pass, compile_members, text_of_id
from bridge.ingress.profiles.profile import Mapped, refuse_unknown
from bridge.ingress.profiles.values import instant_of_epoch
from bridge.ingress.profiles.words import PREFIX_RULE, instant_of, is_given, is_prefix, key_of, prefix_of, zone_of

EXPRESSIONS_MAX = 100
LEVELS_MAX = 8
FILE_MAX_BYTES = 256 * 1024  # of 100 expressions of 500 characters, five times
# What an event costs beside its expressions, in their steps: some 20 microseconds to assemble it.
EVENT_STEPS = 40

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_NESTED = (dict, list)
_NOTHING: frozenset[str] = frozenset()
_ID = re.compile(r"[!-~]{1,200}")
_NATIVE_KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_EVENT_KEYS = ("when", "type", "key", "id", "time", "account", "correlation", "each", "claims", "data")
# Those that a file may also give once for all its events.
_COMMON_KEYS = ("key", "id", "time", "account", "correlation", "each")
_FILE_KEYS = (
    *("prefix", "native", "zone", "names", "arrays", "bucket_s", "content_types", "claims", "drop", "tables", "event"),
    *_COMMON_KEYS,
)
_BUCKET_BOUNDS_S = (60, 86_400)
# Set by the profile for every event.
_RESERVED = ("prescription_id", "extensions")


def configure(options: Mapping[str, str]) -> MappingFile:
    """Build the profile.

    Args:
        options: `mapping`, path of the file (required); `account_id`, of events without an account; `zone`, of times
            without one where the file has none; `prefix`, of the keys instead of the file's.

    Raises:
        ConfigError: The file cannot be used; the message names it and the line.
    """
    refuse_unknown(options, "mapping", "account_id", "zone", "prefix")
    prefix_of(options)
    name = options.get("mapping", "")
    if not name:
        msg = "options.mapping is required: the path of a mapping file"
        raise ConfigError(msg)
    try:
        with Path(name).open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except OSError:
        msg = f"options.mapping: cannot read {name}"
        raise ConfigError(msg) from None
    try:
        return compile_mapping(content, name, options)
    except ConfigError as exc:
        msg = f"options.mapping: {exc}"
        raise ConfigError(msg) from None


class Pointer(NamedTuple):
    """A JSON pointer of a file, in which `*` means any index.

    Attributes:
        text: As in the file.
        way: Its steps but the last.
        last: The last step.
        is_plain: No step is `*` or a number, so only objects can be on its way.
    """

    text: str
    way: tuple[str, ...]
    last: str
    is_plain: bool

    @classmethod
    def of(cls, text: str) -> Pointer:
        """Take it apart."""
        *way, last = (step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])
        is_plain = not any(step == "*" or step.isdecimal() for step in (*way, last))
        return cls(text, tuple(way), last, is_plain)


@dataclass(frozen=True, slots=True)
class Table:
    """One `[[event]]` of a file.

    Attributes:
        number: Its position, from 1.
        when: Whether there is an event; None means always.
        each: The list whose elements are events.
        expressions: Of the leading fields that have one: key, id, time, account, correlation.
        data: Field of the record, dotted if nested -> its expression.
        constants: Fields that are literals, as JSON.
        finished: Constants that no reader gives: enums that are `UNKNOWN` on purpose.
        claims: Pointers, with `*` for any index.
        required: Fields that the type requires.
    """

    number: int
    type: str
    when: Expression | None
    each: Expression | None
    expressions: Mapping[str, Expression]
    data: Mapping[str, Expression]
    constants: Mapping[str, object]
    finished: Mapping[str, object]
    claims: tuple[Pointer, ...]
    required: frozenset[str]


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A compiled file: the profile of the sources that name it.

    Attributes:
        sha256: Of the file.
        prefix: Of the keys; empty for native ids.
        names: Names of all members that an expression may read.
    """

    sha256: str
    prefix: str
    account_id: str
    zone: tzinfo | None
    any_case: bool
    tables: tuple[Table, ...]
    claims: tuple[Pointer, ...]
    drop: tuple[Pointer, ...]
    names: frozenset[str]
    arrays: bool = False
    bucket_s: int = 0
    content_types: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @property
    def ARRAYS(self) -> bool:  # noqa: N802 - as in profiles that are modules
        """Whether an array is a body too."""
        return self.arrays

    @property
    def BUCKET_S(self) -> int:  # noqa: N802 - as above
        """After how long equal bytes without an id are another event; 0 for never."""
        return self.bucket_s

    @property
    def CONTENT_TYPES(self) -> tuple[str, ...]:  # noqa: N802 - as above
        """What a body may be called beside `application/json`."""
        return self.content_types

    @property
    def PREFIX(self) -> str:  # noqa: N802 - as above
        """With what its keys begin."""
        return self.prefix

    def refusing(self, prefixes: tuple[str, ...]) -> MappingFile:
        """Give the same profile, whose native ids begin with none of `prefixes`."""
        return replace(self, prefixes=prefixes)

    def map(self, delivery: Delivery, document: object, /) -> Mapped | ParkReason:
        """Turn a body into the events of all tables that hold; see `Profile.map`."""
        folded = Folded(document) if self.any_case else None
        root = folded.document if folded else document
        run = Run(self, delivery, Scope(root, self.zone), folded)
        try:
            run.read_tables(root)
            run.finish(root, document)
        except ExhaustedError:
            return ParkReason("unusable", "out_of_range")
        if run.park is not None:
            return run.park
        if not run.drafts:
            return ParkReason("unknown_type")
        return compose(delivery, document, run.drafts, run.reading, key=run.drafts[0].key)


class Folded:
    """A document whose names have no case; of two spellings of a name the first that says something counts.

    Attributes:
        document: The folded copy.
        spelled: Identity of a folded object -> folded name -> the name as it is written, where that differs.
        is_ambiguous: There are two spellings of a name.
    """

    def __init__(self, document: object) -> None:
        self.spelled: dict[int, dict[str, str]] = {}
        self.is_ambiguous = False
        self.document = self._fold(document)

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
            says = plain not in given and is_given(child)
            if says or plain not in names:
                names[plain] = name
            if says:
                given.add(plain)
        out = {plain: self._fold(node[name]) for plain, name in names.items()}
        self.spelled[id(out)] = {plain: name for plain, name in names.items() if plain != name}
        return out


class Run:
    """One body on its way through the tables."""

    def __init__(self, mapping: MappingFile, delivery: Delivery, scope: Scope, folded: Folded | None) -> None:
        self.mapping = mapping
        self.delivery = delivery
        self.scope = scope
        self.drafts: list[Draft] = []
        self.park: ParkReason | None = None
        self.reading = Reading(id=delivery.id, time=delivery.received_at, flags=scope.flags)
        self._folded = folded
        self._numbers: set[int | str] = set()
        # Identity of the object and name -> pointer in the body, of members that the file claims and that the table at
        # work claims as well; None until they are looked for.
        self._of_file: dict[tuple[int, str], str] | None = None
        self._claimed: dict[tuple[int, str], str] | None = None
        if folded is not None and folded.is_ambiguous:
            scope.flags.add("name_ambiguous")

    def read_tables(self, root: object) -> None:
        """Make a draft of each table that holds, for each element if it has a list."""
        for table in self.mapping.tables:
            self._claimed = None
            if table.each is None:
                self._read_table(table, root, table.number, "")
                continue
            elements = self._value(table.each, root)
            path = f"{table.each.path}/*" if table.each.path else ""
            for index, element in enumerate(elements if isinstance(elements, list) else ()):
                self._read_table(table, element, index + 1, path)
        self.scope.element = root

    def finish(self, root: object, document: object) -> None:
        """Note what is dropped, and what is claimed without that an expression reads it."""
        for claim in self.mapping.claims:
            if claim.last not in self.mapping.names:
                self.reading.claimed.update(pointer for _, pointer in self._places(root, claim))
        if self._folded is not None:
            ways = [(*drop.way, drop.last) for drop in self.mapping.drop]
            self.reading.dropped.update(self._spellings(document, "", ways))
            return
        for drop in self.mapping.drop:
            self.reading.dropped.update(pointer for _, pointer in self._places(root, drop))

    def _read_table(self, table: Table, element: object, position: int, path: str) -> None:
        scope = self.scope
        scope.element = element
        holds = True if table.when is None else self._value(table.when, element)
        if holds is None or holds is False or holds in ("", [], {}):
            return
        if self._claimed is None:
            self._claimed = self._claims(table)
        claimed = set() if table.when is None else set(self._read_pointers(holds))
        scope.spend(EVENT_STEPS)
        key = self._key(table.expressions["key"], element, path)
        claimed.update(self._read_pointers(None))
        if isinstance(key, ParkReason):
            self.park = self.park or key
            return
        self.reading.claimed |= claimed
        # No slash, so that the last one of an event's id ends the vendor's, which may have some itself.
        number: int | str = position if position not in self._numbers else f"{position}.{table.number}"
        self._numbers.add(number)
        draft = Draft(table.type, number, key, constants=table.constants, mapping=self.mapping.sha256[:12])
        draft.finished = self._leading(table, draft, element, path)
        self._read_data(table, draft, element, path)
        self.drafts.append(draft)

    def _read_data(self, table: Table, draft: Draft, element: object, path: str) -> None:
        """Read the fields of the record into the draft."""
        scope, claimed = self.scope, self._claimed or {}
        members = cast("dict[str, object]", element) if type(element) is dict else None
        for name, expression in table.data.items():
            if members is not None and len(expression.steps) == 1 and expression.steps[0] != "root":
                # A plain member, as most are: the same as below in a fourth of the time.
                step = expression.steps[0]
                value = members.get(step)
                scope.spend(len(value) if type(value) is list else 1)
                pointer = "" if value is None else claimed.get((id(members), step), "")
                others = _NOTHING
            else:
                value = self._value(expression, element)
                pointer, others = "", self._read_pointers(value)
            if value is not None or name in table.required or "." in name:
                at = path + expression.path if expression.path else f"/{name.replace('.', '/')}"
                draft.said[name] = Said(value, at, pointer, others)

    def _value(self, expression: Expression, element: object) -> object:
        """Evaluate; what does not fit says nothing."""
        try:
            value = self.scope.evaluate(expression, element)
        except UnfitError:
            self.scope.flags.add("field_unfit")
            self.scope.read = {}
            return None
        # Functions of JMESPath compute with floats; what is none of a body's numbers says nothing.
        return (Real(repr(value)) if isfinite(value) else None) if isinstance(value, float) else value

    def _read_pointers(self, value: object) -> frozenset[str]:
        """Give the claimed members that the last expression has read; of an object only if it is the whole value."""
        claimed = self._claimed
        if not claimed:
            return _NOTHING
        found = [
            claimed[place]
            for place, item in self.scope.read.items()
            if item is not None and place in claimed and (item is value or type(item) not in _NESTED)
        ]
        return frozenset(found) if found else _NOTHING

    def _key(self, expression: Expression, element: object, path: str) -> str | ParkReason:
        value = self._value(expression, element)
        at = f"{path}{expression.path}" if expression.path else "/key"
        *general, special = value if isinstance(value, list) and value else [None if value == [] else value]
        if not is_given(special):
            return ParkReason("unusable", "no_key", at)
        # Such as a store, which not every delivery names.
        parts = [*filter(is_given, general), special]
        if self.mapping.prefix:
            return key_of(self.mapping.prefix, *parts) or ParkReason("unusable", "bad_key", at)
        text = text_of_id(parts[0]) if len(parts) == 1 else None
        if text is None or not _NATIVE_KEY.fullmatch(text) or text.startswith(OUR_PREFIXES + self.mapping.prefixes):
            return ParkReason("unusable", "bad_key", at)
        return text

    def _leading(self, table: Table, draft: Draft, element: object, path: str) -> dict[str, object]:
        """Read id and time into the draft, and return what else the record leads with."""
        finished = dict(table.finished)
        if (text := self._text(table, "id", element)) is not None:
            if _ID.fullmatch(text):
                draft.id = text
                self._claim()
            else:
                self.scope.flags.add("field_unfit")
        self._time(table, draft, element)
        account = self._text(table, "account", element)
        if account:
            self._claim()
        elif not self.mapping.account_id and self.park is None:
            expression = table.expressions["account"]
            at = f"{path}{expression.path}" if expression.path else "/account"
            self.park = ParkReason("unusable", "missing_field", at, draft.key)
        finished["account_id"] = account or self.mapping.account_id
        if correlation := self._text(table, "correlation", element):
            self._claim()
            finished["correlation_id"] = correlation
        return finished

    def _text(self, table: Table, name: str, element: object) -> str | None:
        expression = table.expressions.get(name)
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

    def _time(self, table: Table, draft: Draft, element: object) -> None:
        expression = table.expressions.get("time")
        value = None if expression is None else self._value(expression, element)
        try:
            draft.time = self._moment(value)
        except (ValueError, OverflowError):
            self.scope.flags.add("field_unfit")
        if draft.time is None:
            self.scope.flags.add("time_of_receipt")
        else:
            self._claim()

    def _moment(self, value: object) -> datetime | None:
        if not is_given(value):
            return None
        if type(value) is str:
            return instant_of(value, self.scope.zone, self.scope.flags)
        if type(value) is int or type(value) is Real:
            return instant_of_epoch(value.lexeme if isinstance(value, Real) else str(value), self.scope.flags)
        raise ValueError

    def _claims(self, table: Table) -> dict[tuple[int, str], str]:
        if self._of_file is None:
            self._of_file = self._claims_of(self.mapping.claims)
        return self._of_file | self._claims_of(table.claims) if table.claims else self._of_file

    def _claims_of(self, patterns: Iterable[Pointer]) -> dict[tuple[int, str], str]:
        root, found = self.scope.root, dict[tuple[int, str], str]()
        is_object, is_folded = type(root) is dict, self._folded is not None
        for pattern in patterns:
            if not pattern.way and pattern.is_plain and not is_folded:  # most members stand at the top
                if is_object and pattern.last in root:  # type: ignore[operator] # an object
                    found[id(root), pattern.last] = pattern.text
                continue
            found.update(self._places(root, pattern))
        return found

    def _places(self, root: object, pattern: Pointer) -> Iterator[tuple[tuple[int, str], str]]:
        """Find what a pointer with `*` means: identity of the object and name, and the pointer in the body."""
        if pattern.is_plain and self._folded is None:
            node: Any = root
            for step in pattern.way:
                node = node.get(step) if type(node) is dict else None
            if type(node) is dict and pattern.last in node:
                yield (id(node), pattern.last), pattern.text
            return
        level: list[tuple[object, str]] = [(root, "")]
        for step in pattern.way:
            level = [found for node, pointer in level for found in self._step(node, pointer, step)]
        for node, pointer in level:
            names = self._names(node, pattern.last)
            for (_, at), name in zip(self._step(node, pointer, pattern.last), names, strict=True):
                yield (id(node), name), at

    def _spellings(self, node: object, pointer: str, ways: Sequence[tuple[str, ...]]) -> Iterator[str]:
        """Find members of the body as it is written: of two spellings of a name, the folded document has but one."""
        self.scope.spend(len(ways))
        below: dict[str, list[tuple[str, ...]]] = {}
        for step, *rest in ways:
            below.setdefault(step, []).append(tuple(rest))
        any_index = below.get("*", []) if isinstance(node, list) else []
        for name, child in children(node):
            found = below.get(name.casefold(), []) + any_index
            at = f"{pointer}/{escaped(name)}"
            if () in found:
                yield at
            elif found:
                yield from self._spellings(child, at, found)

    def _step(self, node: object, pointer: str, step: str) -> Iterator[tuple[object, str]]:
        for name in self._names(node, step):
            child = node[int(name)] if isinstance(node, list) else cast("dict[str, object]", node)[name]
            written = (
                self._folded.spelled[id(node)].get(name, name) if self._folded and isinstance(node, dict) else name
            )
            yield child, f"{pointer}/{escaped(written)}"

    def _names(self, node: object, step: str) -> list[str]:
        if isinstance(node, list):
            self.scope.spend(1)
            if step == "*":
                self.scope.spend(len(node))
                return [str(index) for index in range(len(node))]
            return [step] if step.isdecimal() and len(step) <= len(str(len(node))) and int(step) < len(node) else []
        return [step] if isinstance(node, dict) and step in node else []


def compile_mapping(content: bytes, name: str, options: Mapping[str, str]) -> MappingFile:
    """Compile a file and check all of it.

    Args:
        content: The file.
        name: What messages call it.
        options: Those of the source.

    Raises:
        ConfigError: It cannot be used; the message begins with the name and the line.
    """
    return _Compiler(content, name, options).compile()


@dataclass(slots=True)
class _Compiler:
    content: bytes
    name: str
    options: Mapping[str, str]
    lines: Lines = field(init=False)
    any_case: bool = False
    count: int = 0
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    common: dict[str, Expression] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def compile(self) -> MappingFile:
        document = self._parse()
        self._known(document, _FILE_KEYS, 0)
        self.any_case = self._choice(document, "names", ("as_written", "any_case"), "as_written") == "any_case"
        prefix = self._prefix(document)
        zone_name = self._string(document, "zone", 0) or self.options.get("zone", "")
        try:
            zone = zone_of({"zone": zone_name})
        except ConfigError as exc:
            self._fail(str(exc).removeprefix("options.zone: "), 0, "zone")
        self.tables = self._tables(document)
        self.common = self._expressions(document, _COMMON_KEYS, 0)
        tables = document.get("event")
        if not isinstance(tables, list) or not tables:
            self._fail("there is no [[event]]", 1)
        compiled = tuple(self._table(table, number) for number, table in enumerate(tables, 1))
        return MappingFile(
            sha256=sha256(self.content).hexdigest(),
            prefix=prefix,
            account_id=self.options.get("account_id", ""),
            zone=zone,
            any_case=self.any_case,
            tables=compiled,
            claims=self._pointers(document, "claims", 0),
            drop=self._pointers(document, "drop", 0),
            names=frozenset(self.names),
            arrays=self._flag(document, "arrays"),
            bucket_s=self._bucket(document),
            content_types=tuple(each.lower() for each in self._strings(document, "content_types", 0)),
        )

    def _parse(self) -> dict[str, Any]:
        self.lines = Lines("")
        if len(self.content) > FILE_MAX_BYTES:
            self._fail(f"larger than {FILE_MAX_BYTES} bytes", 0)
        try:
            text = self.content.decode()
        except UnicodeDecodeError as exc:
            self._fail("not UTF-8", 0, line=self.content.count(b"\n", 0, exc.start) + 1)
        self.lines = Lines(text)
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            # A mapping file holds nothing of a delivery and no secret, so what the reader says may be shown.
            why, _, place = str(exc).partition(" (at ")
            at = re.match(r"line ([0-9]+)", place)
            self._fail(f"no TOML: {why}", 0, line=int(at[1]) if at else len(text.splitlines()) or 1)
        except (RecursionError, ValueError):
            self._fail("no TOML: nested too deeply, or a number that is none", 0)

    def _prefix(self, document: dict[str, Any]) -> str:
        native = self._flag(document, "native")
        prefix = self._string(document, "prefix", 0)
        if native and (prefix or "prefix" in self.options):
            self._fail("a source of native ids has no prefix", 0, "prefix")
        if native:
            return ""
        if not prefix:
            self._fail("prefix is missing: with what the keys begin, such as 'acme:'", 0)
        if not is_prefix(prefix):
            self._fail(PREFIX_RULE, 0, "prefix")
        return prefix_of(self.options, prefix)

    def _table(self, table: object, number: int) -> Table:
        if not isinstance(table, dict):
            self._fail("event is no table", number)
        self._known(table, _EVENT_KEYS, number)
        event_type = self._string(table, "type", number)
        if event_type not in PLANS:
            unknown = f"unknown type {event_type[:60]!r}"
            self._fail(unknown if event_type else "type is missing", number, "type")
        found = self.common | self._expressions(table, ("when", *_COMMON_KEYS), number)
        if "key" not in found:
            self._fail("key is missing", number)
        if "account" not in found and not self.options.get("account_id"):
            self._fail("account is missing, and the source has no option account_id", number)
        data = table.get("data", {})
        if not isinstance(data, dict):
            self._fail("data is no table", number, "data")
        fields = dict(_flat(data))
        self._check_fields(event_type, fields, number)
        expressions = {dotted: self._expression(text, number, f"data.{dotted}") for dotted, text in fields.items()}
        self._check_required(event_type, expressions, number)
        constants = {dotted: each.constant for dotted, each in expressions.items() if each.node["type"] == "literal"}
        finished = {
            dotted: UNKNOWN for dotted, value in constants.items() if self._is_unknown(event_type, dotted, value)
        }
        constants = {dotted: value for dotted, value in constants.items() if dotted not in finished}
        self._check_constants(event_type, constants, number)
        self._check_words(event_type, expressions, number)
        return Table(
            number=number,
            type=event_type,
            when=found.pop("when", None),
            each=found.pop("each", None),
            expressions=found,
            data={dotted: each for dotted, each in expressions.items() if each.node["type"] != "literal"},
            constants=constants,
            finished=finished,
            claims=self._pointers(table, "claims", number),
            required=frozenset(PLANS[event_type].members.required),
        )

    def _expressions(self, table: Mapping[str, Any], names: tuple[str, ...], number: int) -> dict[str, Expression]:
        return {name: self._expression(table[name], number, name) for name in names if name in table}

    def _expression(self, text: object, number: int, name: str) -> Expression:
        self.count += 1
        if self.count > EXPRESSIONS_MAX:
            self._fail(f"more than {EXPRESSIONS_MAX} expressions", number, name)
        if not isinstance(text, str):
            self._fail(f"{name} is no text: a constant is a literal in back-ticks, such as '`1`'", number, name)
        try:
            compiled = compile_expression(text, any_case=self.any_case, tables=self.tables)
        except ExpressionError as exc:
            self._fail(f"{name}: {exc}", number, name)
        self.names |= compiled.names
        return compiled

    def _check_fields(self, event_type: str, fields: Iterable[str], number: int) -> None:
        for dotted in fields:
            steps = dotted.split(".")
            members: Members | None = PLANS[event_type].members
            model: type[Record] | None = EVENT_MODELS[event_type]
            for step in steps:
                if members is None or step not in members.puts or steps[0] in _RESERVED:
                    self._fail(f"unknown field {dotted[:60]!r} of {event_type}", number, f"data.{dotted}")
                model = _record_of(model, step)
                members = compile_members(model, "") if model else None

    def _check_required(self, event_type: str, expressions: Mapping[str, Expression], number: int) -> None:
        given = {each for dotted in expressions for each in _prefixes(dotted)}
        wanted = set(PLANS[event_type].members.required)
        for dotted in expressions:
            model: type[Record] | None = EVENT_MODELS[event_type]
            *way, _ = dotted.split(".")
            for depth, step in enumerate(way, 1):
                model = _record_of(model, step)
                inner = model.model_fields if model else {}
                wanted |= {".".join([*way[:depth], name]) for name, info in inner.items() if info.is_required()}
        for name in sorted(wanted - given):
            self._fail(f"required field {name!r} of {event_type} has no expression", number)

    def _is_unknown(self, event_type: str, dotted: str, value: object) -> bool:
        """Tell an enum that is `UNKNOWN` on purpose from a word of the vendor."""
        return value == UNKNOWN and raw_name(dotted) in PLANS[event_type].blank

    def _check_constants(self, event_type: str, constants: Mapping[str, object], number: int) -> None:
        for dotted, value in constants.items():
            *way, name = dotted.split(".")
            members, model = PLANS[event_type].members, cast("type[Record]", EVENT_MODELS[event_type])
            for step in way:
                model = cast("type[Record]", _record_of(model, step))
                members = compile_members(model, "")
            attempt = Pass()
            if value is not None:
                members.puts[name]({}, value, attempt)
            if value is None or attempt.worst is not None or "enum_unknown" in attempt.flags:
                self._fail(f"the constant of {dotted!r} does not fit {event_type}", number, f"data.{dotted}")

    def _check_words(self, event_type: str, expressions: Mapping[str, Expression], number: int) -> None:
        """Refuse what a table or literal would write into an enum that has no such word."""
        for dotted, expression in expressions.items():
            *way, name = dotted.split(".")
            model = cast("type[Record]", EVENT_MODELS[event_type])
            for step in way:
                model = cast("type[Record]", _record_of(model, step))
            field = plain(model.model_fields[name])
            words = () if get_origin(field) is list else words_of(field)
            for word in targets(expression.node) if words else ():
                if word is not None and word not in words:
                    why = f"{str(word)[:60]!r} is no word of {dotted!r} in {event_type}"
                    self._fail(why, number, f"data.{dotted}")

    def _pointers(self, table: Mapping[str, Any], name: str, number: int) -> tuple[Pointer, ...]:
        pointers = self._strings(table, name, number)
        for pointer in pointers:
            if not _POINTER.fullmatch(pointer):
                self._fail(f"{pointer[:60]!r} of {name} is no JSON pointer, such as /rx/id", number, name)
        return tuple(Pointer.of(pointer.casefold() if self.any_case else pointer) for pointer in pointers)

    def _strings(self, table: Mapping[str, Any], name: str, number: int) -> list[str]:
        value: list[str] = table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._fail(f"{name} is no list of texts", number, name)
        if len(value) > EXPRESSIONS_MAX:
            self._fail(f"{name} has more than {EXPRESSIONS_MAX} entries", number, name)
        return value

    def _string(self, table: Mapping[str, Any], name: str, number: int) -> str:
        value: str = table.get(name, "")
        if not isinstance(value, str):
            self._fail(f"{name} is no text", number, name)
        return value

    def _choice(self, table: Mapping[str, Any], name: str, words: tuple[str, ...], default: str) -> str:
        value = self._string(table, name, 0) or default
        if value not in words:
            self._fail(f"{name} is one of {', '.join(words)}", 0, name)
        return value

    def _tables(self, document: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
        tables = document.get("tables", {})
        if not isinstance(tables, dict):
            self._fail("tables is no table of tables", 0, "tables")
        for name, table in tables.items():
            if not isinstance(table, dict) or not all(isinstance(word, str) for word in table.values()):
                self._fail(f"table {name[:60]!r} is no table of words", 0, f"tables.{name}")
        return tables

    def _flag(self, table: Mapping[str, Any], name: str) -> bool:
        value: bool = table.get(name, False)
        if not isinstance(value, bool):
            self._fail(f"{name} is true or false", 0, name)
        return value

    def _bucket(self, table: Mapping[str, Any]) -> int:
        value: int = table.get("bucket_s", 0)
        least, most = _BUCKET_BOUNDS_S
        if "bucket_s" in table and (type(value) is not int or not least <= value <= most):
            self._fail(f"bucket_s is a whole number of seconds, {least} to {most}", 0, "bucket_s")
        return value

    def _known(self, table: Mapping[str, Any], known: tuple[str, ...], number: int) -> None:
        for name in table:
            if name not in known:
                self._fail(f"unknown key {name[:60]!r}; known: {', '.join(known)}", number, name)

    def _fail(self, why: str, number: int, name: str = "", *, line: int = 0) -> NoReturn:
        """Raise with the line of `name` in the table `number`, or of the table."""
        msg = f"{self.name}:{line or self.lines.find(number, name)}: {why}"
        raise ConfigError(msg)


class Lines:
    """Where the keys of a TOML file stand, which its reader does not tell.

    A key inside a text of several lines may be taken for one; the line is then near.
    """

    _KEY = re.compile(
        r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
    )
    _HEADER = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.\s-]+?)\s*\]\]?\s*(?:#.*)?")

    def __init__(self, text: str) -> None:
        # Number of the event's table, or 0, and dotted name -> line.
        self._found: dict[tuple[int, str], int] = {}
        number, at, prefix = 0, 0, ""
        for line, content in enumerate(text.splitlines(), 1):
            if header := self._HEADER.fullmatch(content):
                name = header[1].replace(" ", "")
                if name == "event":
                    number, at, prefix = number + 1, number + 1, ""
                    self._found[number, ""] = line
                else:
                    at = number if name.startswith("event.") else 0
                    prefix = f"{name.removeprefix('event.')}."
                    self._found.setdefault((at, prefix[:-1]), line)
            elif key := self._KEY.match(content):
                name = re.sub(r"[\s\"']", "", key[1])
                self._found.setdefault((at, prefix + name), line)
                for step in islice(_prefixes(name), LEVELS_MAX + 1):
                    self._found.setdefault((at, prefix + step), line)

    def find(self, number: int, name: str) -> int:
        """Give the line of a key, else that of its table, else the first."""
        while name and (number, name) not in self._found:
            name = name.rpartition(".")[0]
        return self._found.get((number, name)) or self._found.get((number, ""), 1)


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in data.items():
        # No record of the contract nests as deeply; what does is an unknown field.
        if isinstance(value, dict) and prefix.count(".") < LEVELS_MAX:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _prefixes(dotted: str) -> Iterator[str]:
    end = dotted.find(".")
    while end >= 0:
        yield dotted[:end]
        end = dotted.find(".", end + 1)
    yield dotted


def _record_of(model: type[Record] | None, name: str) -> type[Record] | None:
    """Give the record that a field of `model` holds, if it holds one."""
    if model is None or name not in model.model_fields:
        return None
    annotation = model.model_fields[name].annotation
    if get_origin(annotation) is list:
        return None
    candidates = (annotation, *get_args(annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, Record)), None)
