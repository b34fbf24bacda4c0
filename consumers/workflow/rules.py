"""Map events to workflow starts and signals by the rules of a TOML file; the first match applies.

    task_queue = "drx"  # of every rule without its own, and of the timers

    [[rule]]
    types = ["renewal.requested"]             # patterns of event types
    when = "data.pharmacy.ncpdp_id != null"   # optional: JMESPath on the native body
    do = "signal_or_start"                    # or "start", "signal"
    workflow = "Renewal"                      # its type
    signal = "asked"
    id = "renewal:{source}:{request_id}"      # `{a|b}` is the first of them that the event has

By default, ids and payloads identify prescriptions and requests, but no persons by name.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bridge.contract.events import EVENT_MODELS
from bridge.contract.native import native_json
from bridge.errors import ConfigError, PermanentError
from bridge.event import Event
from consumers.conditions import Condition

Verb = Literal["start", "signal", "signal_or_start"]

PING = "system.ping"
# Names that an id may use, in addition to the fields of the record.
_OF_EVERY_EVENT: Mapping[str, Callable[[Event], str]] = {
    "source": lambda event: event.source,
    "key": lambda event: event.key,
    "event_id": lambda event: event.id,
}
_FIELDS = ("request_id", "message_id", "alert_id")
_slots = re.compile(r"\{([^{}]*)\}")
# The position in messages of `tomllib`.
_at_line = re.compile(r"at line ([0-9]+)").search
# Temporal's limit on an id or a name (`limit.maxIDLength`).
_NAME_MAX = 1000
_FILE_MAX = 1_000


class Action(NamedTuple):
    """The start or signal of a workflow."""

    do: Verb
    id: str
    workflow: str  # type of the workflow; empty if the rule only signals one
    task_queue: str
    signal: str  # empty if the rule only starts a workflow


def _known_types(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not _matching(pattern):
            raise ValueError(f"no event type is {pattern!r}")
    return patterns


def _template(text: str) -> str:
    if "{" in _slots.sub("", text) or "}" in _slots.sub("", text):
        raise ValueError("has an unmatched brace")
    for name in (name for slot in _slots.findall(text) for name in slot.split("|")):
        if name not in _OF_EVERY_EVENT and name not in _FIELDS:
            raise ValueError(f"has no {{{name}}}: there are {', '.join(sorted({*_OF_EVERY_EVENT, *_FIELDS}))}")
    return text


Name = Annotated[str, Field(min_length=1, max_length=_NAME_MAX)]


class Rule(BaseModel):
    """One rule of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    types: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_types)]
    when: Condition = None
    do: Verb
    id: Annotated[Name, AfterValidator(_template)]
    workflow: Name | None = None
    signal: Name | None = None
    task_queue: Name | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Rule":
        needed = {"start": ("workflow",), "signal": ("signal",), "signal_or_start": ("workflow", "signal")}[self.do]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{self.do} needs {name}")
        for name in {"workflow", "signal", "task_queue"} - {*needed, *(("task_queue",) if self.workflow else ())}:
            if getattr(self, name) is not None:
                raise ValueError(f"{self.do} takes no {name}")
        for event_type in sorted({each for pattern in self.types for each in _matching(pattern)} - self._pings()):
            names = {*_OF_EVERY_EVENT, *EVENT_MODELS[event_type].model_fields}
            for slot in _slots.findall(self.id):
                if names.isdisjoint(slot.split("|")):
                    raise ValueError(f"{event_type} has no {slot}")
        return self

    def _pings(self) -> frozenset[str]:
        return frozenset({PING}) - {*self.types}

    def fits(self, event_type: str) -> bool:
        """Return whether it matches a type; pings only match if named explicitly."""
        return any(fnmatchcase(event_type, each) for each in self.types) and event_type not in self._pings()


class Rules(BaseModel):
    """The rules of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    task_queue: Name
    rule: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=_FILE_MAX)]

    @property
    def types(self) -> tuple[str, ...]:
        """Patterns of all event types that have a rule."""
        return tuple(dict.fromkeys(each for rule in self.rule for each in rule.types))

    def action(self, event: Event) -> Action | None:
        """Return the action for an event, or None; `PermanentError` if the id lacks a field or a condition fails."""
        body = b""
        for rule in self.rule:
            if not rule.fits(event.type):
                continue
            if rule.when is not None:
                body = body or native_json(event.value)
                if not rule.when.holds(body, event):
                    continue
            queue = rule.task_queue or self.task_queue
            return Action(rule.do, _id(rule.id, event), rule.workflow or "", queue, rule.signal or "")
        return None


def parse_rules(text: str, *, file: str) -> Rules:
    """Parse rules; `ConfigError` names `file` and the rule, and shows no values."""
    try:
        return Rules.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        found = _at_line(str(exc))
        line = int(found[1]) if found else len(text.splitlines())
        raise ConfigError(f"{file}, line {line}: invalid TOML") from None
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        place = " ".join(str(each + 1) if isinstance(each, int) else each for each in error["loc"])
        raise ConfigError(f"{file}: {place}: {error['msg'].removeprefix('Value error, ')}") from None


def payload(event: Event, *, whole: bool) -> bytes:
    """Return the payload of an event, always the same bytes: ids and time, and the native body if `whole`."""
    content: dict[str, Any] = {
        "source": event.source,
        "event_id": event.id,
        "type": event.type,
        "key": event.key,
        "account_id": event.value["account_id"],
        "occurred_at": event.occurred_at,
    }
    if whole:
        content["event"] = orjson.Fragment(native_json(event.value))
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)


def request_id(*words: str) -> str:
    """Return the id by which the server recognises a repeated request."""
    return str(uuid5(NAMESPACE_URL, "\n".join(words)))


def _id(template: str, event: Event) -> str:
    def value(slot: re.Match[str]) -> str:
        for name in slot[1].split("|"):
            found = _OF_EVERY_EVENT[name](event) if name in _OF_EVERY_EVENT else event.value.get(name)
            if isinstance(found, str) and found:
                return found
        raise PermanentError("no_id")

    return _slots.sub(value, template)


def _matching(pattern: str) -> set[str]:
    return {each for each in EVENT_MODELS if fnmatchcase(each, pattern)}
