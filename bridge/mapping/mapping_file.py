r"""The mapping file: TOML whose expressions find events in a vendor's body.

    prefix = "acme:"                 # of the keys
    zone = "America/New_York"        # of times without one
    claims = ["/version"]            # members not kept in `extensions`, besides members that expressions read
    drop = ["/patient/birth"]        # members that are dropped
    drop_names = ["*ssn*"]           # the same, by their names at any depth

    key = "rx.id"                    # for all events without their own `key`
    reported = "kind"                # the type of a body for which no `when` is true: reported unchanged
    ignore = ["HEARTBEAT"]           # types of bodies to ignore

    [[event]]                        # every table whose `when` is true, in this order
    when = "kind == 'STATE'"
    type = "fulfillment.status_changed"
    [event.data]
    queue_id = "rx.id"
    fulfillment_status = "words(state, `{\"IN_WORK\": \"in_progress\", \"DONE\": \"packed\"}`)"

    [[event]]                        # instead of a type: park the delivery, with a reason
    when = "kind == 'STATE' && !state"
    park = {reason = "unknown_type", field = "/state"}

The whole file is checked at startup, so a mistake never affects a delivery; the message names the key.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from functools import cache
from itertools import accumulate
from typing import Annotated, Any, Literal, NoReturn, cast, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.contract.fields import UNKNOWN, ContractRecord, kept_words, plain, raw_name, words_of
from bridge.errors import ConfigError
from bridge.mapping.assemble import SHAPES, steps_of
from bridge.mapping.mapped_functions import Expression, ExpressionError, Node, compile_expression, targets
from bridge.mapping.readers import Pass, UnusableFault, compile_members
from bridge.mapping.words import PREFIX_RULE, is_prefix, prefix_of

EXPRESSIONS_MAX = 100
LEVELS_MAX = 8  # deeper than any record of the contract
FILE_MAX_BYTES = 256 * 1024  # bytes; five times the size of 100 expressions of 500 characters
# Fields that the profile sets for every event.
_RESERVED = ("prescription_id", "extensions")
_DETAILS = frozenset({"", *(each.name.lower() for each in UnusableFault)})
_LEADING = ("id", "time", "account", "correlation")
# Nested lists whose innermost elements are events: `orders[].lines`.
_is_nested = re.compile(r"[\w.]+(?:\[\*?\]\.[\w.]+)+(?:\[\*?\])?").fullmatch


def _flat(data: object, prefix: str = "") -> object:
    """Flatten nested tables of fields, with dotted names."""
    if not isinstance(data, dict):
        return data
    flat: dict[str, object] = {}
    for name, value in data.items():
        nested = isinstance(value, dict) and prefix.count(".") < LEVELS_MAX
        flat |= cast("dict[str, object]", _flat(value, f"{prefix}{name}.")) if nested else {f"{prefix}{name}": value}
    return flat


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _levels(value: object) -> object:
    return re.split(r"\[\*?\]\.", value) if isinstance(value, str) and _is_nested(value) else _listed(value)


def _known_detail(detail: str) -> str:
    if detail not in _DETAILS:
        raise ValueError(f"is not one of {', '.join(sorted(_DETAILS - {''}))}")
    return detail


def _name_pattern(text: str) -> str:
    if not re.search(r"[0-9a-z]", plain_pattern(text)):
        raise ValueError("has neither a letter nor a digit")
    return text


PointerText = Annotated[str, Field(pattern=r"^(?:/(?:[^~/]|~[01])*)+$")]
Pointers = Annotated[list[PointerText], Field(max_length=EXPRESSIONS_MAX)]
WordTables = dict[str, dict[str, str]]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Common(_Table):
    """Settings that a file may give for all its events."""

    key: Annotated[list[str] | None, BeforeValidator(_listed)] = Field(None, min_length=1)
    id: str | None = None
    time: str | None = None
    account: str | None = None
    correlation: str | None = None
    each: Annotated[list[str] | None, BeforeValidator(_levels)] = Field(None, min_length=1)
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]{1,40}$")


class ParkTable(_Table):
    """`park` of an `[[event]]`: the reason to park the delivery."""

    reason: Literal["unknown_type", "unusable"]
    detail: Annotated[str, AfterValidator(_known_detail)] = ""
    field: PointerText | Literal[""] = ""

    @model_validator(mode="after")
    def _has_detail(self) -> "ParkTable":
        if (self.reason == "unusable") != bool(self.detail):
            raise ValueError("unusable has a detail, and unknown_type none")
        return self


class EventTable(_Common):
    """One `[[event]]` table."""

    when: str | None = None
    type: str = ""
    claims: Pointers = []
    data: Annotated[dict[str, str], BeforeValidator(_flat)] = {}
    park: ParkTable | None = None


class FileTable(_Common):
    """A whole file."""

    prefix: str = ""
    native: bool = False
    zone: str = ""
    names: Literal["as_written", "any_case"] = "as_written"
    arrays: bool = False
    form: str = Field("", pattern=r"^[^/~]*$")
    base64: PointerText | None = None
    array: Literal["best"] | None = None
    best: list[str] = Field([], max_length=10)
    bucket_s: int = Field(0, ge=60, le=86_400, validate_default=False)
    content_types: list[str] = []
    claims: Pointers = []
    drop: Pointers = []
    drop_names: list[Annotated[str, Field(pattern=r"^[ -~]{1,40}$"), AfterValidator(_name_pattern)]] = []
    tables: WordTables = {}
    let: dict[str, str] = {}
    option_tables: list[str] = []
    requires: list[Literal["account_id"]] = []
    reported: str | None = None
    ignore: list[str] = []
    event: list[EventTable] = []


Pointer = Sequence[str]
"""The steps of a JSON pointer in a mapping file; `*` means any index."""


class EventRule:
    """One `[[event]]`, checked and compiled."""

    def __init__(
        self,
        table: EventTable,
        expressions: Mapping[str, Expression],
        *,
        key: Sequence[Expression],
        each: Sequence[Expression],
        name: str,
        claims: Sequence[Pointer],
    ) -> None:
        self.name = table.name or name or table.type  # suffix of its events' ids
        self.is_named = table.name is not None  # the table sets the name explicitly
        self.type = table.type
        self.park = table.park
        self.claims = claims
        self.when = expressions.get("when")  # condition for an event; None means always
        # Lists, each within an element of the previous one; the elements of the last are events.
        self.each = each
        # The parts of the key, from the general to the specific.
        self.key = key
        # Expressions of the other leading fields: id, time, account, correlation.
        self.leading = {name: expressions[name] for name in _LEADING if name in expressions}
        data = {name[5:]: each for name, each in expressions.items() if name.startswith("data.")}
        literals = {name: each.constant for name, each in data.items() if each.node["type"] == "literal"}
        blank = SHAPES[table.type].blank if table.type else {}
        # Constants that bypass the readers: enums that the file sets to `UNKNOWN`.
        self.finished = {
            name: UNKNOWN for name, value in literals.items() if value == UNKNOWN and raw_name(name) in blank
        }
        # Fields that are literals, as JSON.
        self.constants = {name: value for name, value in literals.items() if name not in self.finished}
        # Field of the record, dotted if nested -> its expression.
        self.data = {name: each for name, each in data.items() if name not in literals}
        # Fields that the type requires.
        self.required = frozenset(SHAPES[table.type].members.required) if table.type else frozenset()


class CompiledFile:
    """A checked file with compiled expressions."""

    def __init__(self, content: bytes, name: str, options: Mapping[str, str]) -> None:
        """Read a file; `ConfigError` messages begin with `name` and the key in it."""
        self._name = name
        self._options = options
        self._count = 0
        self._missing: list[str] = []  # missing options, reported together
        self.names: set[str] = set()  # names of all members that an expression may read
        self.document = document = self._parse(content)
        self.any_case = document.names == "any_case"
        self.claims, self.drop = self._pointers(document.claims), self._pointers(document.drop)
        self.drops = DroppedNames(document.drop_names) if document.drop_names else None
        self._check_options()
        self.prefix = self._prefix()  # prefix of all keys; empty for native ids
        self._given = self._option_words()
        self._tables = {name: words | self._given.get(name, {}) for name, words in document.tables.items()}
        self._lets: dict[str, Node] = {}
        for let, text in document.let.items():
            self._lets[let] = self._expression(text, f"let.{let}").node
        given = {each: text for each in _LEADING if (text := getattr(document, each)) is not None}
        self._common = {each: self._expression(text, each) for each, text in given.items()}
        self.best = self._expressions(document.best, "best")
        self.key = self._expressions(document.key or [], "key")
        self.each = self._expressions(document.each or [], "each")
        if document.array and not (self.best and self.key):
            self._fail("array", "needs best and key, which choose one of the lines")
        # Expression of a body's type.
        self.reported = self._expression(document.reported, "reported") if document.reported else None
        self.events = [self._event(table, f"event.{number}") for number, table in enumerate(document.event, 1)]
        if self._missing:
            raise ConfigError(f"{name}: {'; '.join(self._missing)}")
        # Paths at which tables look for elements.
        self.lists = {
            path for event in self.events for path in accumulate((each.path for each in event.each), "{}/*{}".format)
        }
        # Rule for a body that no `[[event]]` matches; None: the body is parked.
        self.other = self._event(EventTable(type=OTHER_REPORTED), "reported") if self.reported else None
        if document.ignore and not self.reported:
            self._fail("ignore", "needs reported, which gives the type of a body")

    def _parse(self, content: bytes) -> FileTable:
        if len(content) > FILE_MAX_BYTES:
            self._fail("", f"larger than {FILE_MAX_BYTES} bytes")
        try:
            return FileTable.model_validate(tomllib.loads(content.decode()))
        except UnicodeDecodeError:
            self._fail("", "not UTF-8")
        except tomllib.TOMLDecodeError as exc:
            # A mapping file holds no delivery and no secret, so the parser's message may be shown.
            self._fail("", f"invalid TOML: {exc}")
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            event, *steps = (step + 1 if isinstance(step, int) else step for step in first["loc"])
            self._fail(".".join(map(str, (event, *steps))), first["msg"])
        except (RecursionError, ValueError):
            self._fail("", "invalid TOML: nested too deeply, or an invalid number")

    def _check_options(self) -> None:
        for option in self.document.requires:
            if not self._options.get(option):
                raise ConfigError(f"options.{option} is required")
        for name in self.document.option_tables:
            if name not in self.document.tables:
                self._fail("option_tables", f"there is no [tables.{name}]")

    def _prefix(self) -> str:
        document = self.document
        if document.native:
            if document.prefix or "prefix" in self._options:
                self._fail("prefix", "a source of native ids has no prefix")
            return ""
        if not document.prefix:
            self._fail("prefix", "is missing: the beginning of the keys, such as 'acme:'")
        if not is_prefix(document.prefix):
            self._fail("prefix", PREFIX_RULE.removeprefix("prefix "))
        return prefix_of(self._options, document.prefix)

    def _option_words(self) -> WordTables:
        """Parse values that options add to tables, such as `READY=packed,SHIPPED=handed_to_carrier`."""
        found: WordTables = {}
        for name in self.document.option_tables:
            for entry in filter(None, (entry.strip() for entry in self._options.get(name, "").split(","))):
                word, equals, meaning = (part.strip() for part in entry.partition("="))
                if not word or not equals:
                    raise ConfigError(f"options.{name}: {entry!r} is not WORD=MEANING")
                found.setdefault(name, {})[word] = meaning
        return found

    def _event(self, table: EventTable, path: str) -> EventRule:
        if bool(table.type) == bool(table.park):
            self._fail(path, "needs a type, or park")
        if table.type and table.type not in SHAPES:
            self._fail(f"{path}.type", f"unknown type {table.type[:60]!r}")
        own = {each: text for each in ("when", *_LEADING) if (text := getattr(table, each)) is not None}
        expressions = self._common | {each: self._expression(text, f"{path}.{each}") for each, text in own.items()}
        key = self._expressions(table.key, f"{path}.key") if table.key else self.key
        each = self._expressions(table.each, f"{path}.each") if table.each else self.each
        if table.type == OTHER_REPORTED:
            if self.reported is None:
                self._fail(path, f"{OTHER_REPORTED} needs reported, which gives the type of a body")
            if not key and "account" not in expressions and not self._options.get("account_id"):
                self._fail(path, "needs key or account")
            self._check_fields(table, path)
        elif not table.park:
            if not key:
                self._fail(f"{path}.key", "is missing")
            if "account" not in expressions and not self._options.get("account_id"):
                self._fail(f"{path}.account", "is missing, and the source has no option account_id")
            self._check_fields(table, path)
        for dotted, text in table.data.items():
            expressions[f"data.{dotted}"] = self._expression(text, f"{path}.data.{dotted}")
        event = EventRule(
            table, expressions, key=key, each=each, name=self.document.name or "", claims=self._pointers(table.claims)
        )
        self._check_constants(event, path)
        self._check_words(event, path)
        return event

    def _pointers(self, texts: Iterable[str]) -> tuple[Pointer, ...]:
        return tuple(steps_of(text.casefold() if self.any_case else text) for text in texts)

    def _expressions(self, texts: Iterable[str], path: str) -> list[Expression]:
        return [self._expression(text, path) for text in texts]

    def _expression(self, text: str, path: str) -> Expression:
        self._count += 1
        if self._count > EXPRESSIONS_MAX:
            self._fail(path, f"more than {EXPRESSIONS_MAX} expressions")
        try:
            compiled = compile_expression(text, any_case=self.any_case, tables=self._tables, lets=self._lets)
        except ExpressionError as exc:
            self._fail(path, str(exc))
        self.names |= compiled.names
        return compiled

    def _check_fields(self, table: EventTable, path: str) -> None:
        fields = _fields_of(table.type)
        for dotted in table.data:
            if dotted not in fields:
                self._fail(f"{path}.data.{dotted}", f"unknown field of {table.type}")
        parents = {each for dotted in table.data for each in accumulate(dotted.split(".")[:-1], "{}.{}".format)}
        wanted = {*SHAPES[table.type].members.required, *(each for each in fields if _is_wanted(each, parents, fields))}
        if missing := sorted(wanted - parents - table.data.keys()):
            names = f"field{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}"
            self._missing.append(
                f"{path}.data: required {names} of {table.type} ha{'ve' if len(missing) > 1 else 's'} no expression"
            )

    def _check_constants(self, event: EventRule, path: str) -> None:
        for dotted, value in event.constants.items():
            model, name = _fields_of(event.type)[dotted]
            attempt = Pass()
            if value is not None:
                members = SHAPES[event.type].members if name == dotted else compile_members(model, "")
                members.puts[name]({}, value, attempt)
            if value is None or attempt.worst is not None or "enum_unknown" in attempt.flags:
                self._fail(f"{path}.data.{dotted}", f"the constant does not fit {event.type}")

    def _check_words(self, event: EventRule, path: str) -> None:
        """Refuse tables and literals with a value that is not in the enum of their field."""
        given = {meaning: option for option, words in self._given.items() for meaning in words.values()}
        for dotted, expression in event.data.items():
            model, name = _fields_of(event.type)[dotted]
            field = plain(model.model_fields[name])
            words = () if get_origin(field) is list else words_of(field)
            for word in targets(expression.node) if words else ():
                if word is None or word in words:
                    continue
                why = f"{str(word)[:60]!r} is not a value of {dotted!r} in {event.type}"
                if word in given:
                    raise ConfigError(f"options.{given[word]}: {why}")
                self._fail(f"{path}.data.{dotted}", why)

    def _fail(self, path: str, why: str) -> NoReturn:
        shown = "".join(each if each.isprintable() else "?" for each in path)[:200]
        raise ConfigError(f"{self._name}: {shown}{': ' if shown else ''}{why}")


class DroppedNames:
    """Patterns of the names of members that are dropped.

    Names and patterns are compared by letters and digits, ignoring case: `*` matches anything, and `[!aeiou]` one
    character except these. A plain pattern also matches whole words of a name: `ssn` matches `SpouseSsnLast4` and
    `spouse_ssn_last4`, but not `BusinessName`; `birth_date` matches `ownBirthDate`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._holds = re.compile("|".join(translate(plain_pattern(each)) for each in patterns)).match
        plain = [re.findall(r"[0-9a-z]+", each.casefold()) for each in patterns if not re.search(r"[*?\[]", each)]
        self._words = re.compile("|".join(_within_name(words) for words in plain))
        self._hints = tuple("".join(words) for words in plain)

    def __call__(self, name: str) -> bool:
        """Return whether members of this name are dropped."""
        plain_name = name.casefold()
        if not plain_name.isalnum():
            plain_name = "".join(filter(str.isalnum, plain_name))
        if self._holds(plain_name):
            return True
        return any(hint in plain_name for hint in self._hints) and bool(self._words.search(name))


def plain_pattern(pattern: str) -> str:
    """Reduce a pattern to the parts compared: letters, digits, `*`, `?` and sets such as `[!aeiou]`."""
    return "".join(re.findall(r"\[!?[^]]*[0-9a-z][^]]*\]|[0-9a-z*?]", pattern.casefold()))


def _within_name(words: Sequence[str]) -> str:
    """Return a regular expression for consecutive words in a name of any style."""
    upper, title, lower = ("[^A-Za-z0-9]*".join(map(spell, words)) for spell in (str.upper, str.title, str.lower))
    return f"(?<![A-Z]){upper}(?![a-z])|{title}(?![a-z])|(?<![A-Za-z]){lower}(?![A-Za-z])"


_Fields = Mapping[str, tuple[type[ContractRecord], str]]


@cache
def _fields_of(event_type: str) -> _Fields:
    """Return the fields that a file may set: dotted name -> the record of the field, and its name there."""

    def walk(model: type[ContractRecord], prefix: str) -> Iterator[tuple[str, tuple[type[ContractRecord], str]]]:
        for name in model.model_fields.keys() - kept_words(model):
            yield f"{prefix}{name}", (model, name)
            if inner := _record_of(model, name):
                yield from walk(inner, f"{prefix}{name}.")

    top = SHAPES[event_type].members.puts.keys() - set(_RESERVED)
    return {dotted: at for dotted, at in walk(EVENT_MODELS[event_type], "") if dotted.partition(".")[0] in top}


def _is_wanted(dotted: str, parents: Collection[str], fields: _Fields) -> bool:
    """Return whether this field is required by a nested record that the file sets partly."""
    model, name = fields[dotted]
    return dotted.rpartition(".")[0] in parents and model.model_fields[name].is_required()


def _record_of(model: type[ContractRecord], name: str) -> type[ContractRecord] | None:
    """Return the record class of a field of `model`, if it holds one."""
    annotation: Any = model.model_fields[name].annotation
    candidates = () if get_origin(annotation) is list else (annotation, *get_args(annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, ContractRecord)), None)
