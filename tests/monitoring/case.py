"""What each alert must fire at, and what comes near and must leave it quiet; each is a whole system with one fault."""

from dataclasses import dataclass

from tests.monitoring.series import POSTS, Series, flat, rising

# An hour, of which the second half has the fault.
HOUR, HALF = 61, 30
REST = HOUR - HALF
LONG = 3 * 24 * 2 + 1  # three days of samples half an hour apart
WEEK = 7 * 24 * 6
PAGE, TICKET = "page", "ticket"


@dataclass(frozen=True, slots=True)
class Span:
    """How long a case is looked at; a long one by the rules of one group, as each is evaluated at each sample."""

    samples: int = HOUR
    minutes: int = 1
    only: str = ""


HOURLY = Span()


@dataclass(frozen=True, slots=True)
class Case:
    """A system at its last sample; `fires` is every alert that then does, by name and severity."""

    name: str
    changes: Series
    fires: frozenset[tuple[str, str]] = frozenset()
    span: Span = HOURLY


def step(after: float, *, before: float = 0, last: int = REST) -> str:
    """Another value in the last samples."""
    return f"{flat(before, HOUR - last)} {flat(after, last)}"


def bend(first: float, then: float, *, samples: int = HOUR, last: int = REST) -> str:
    """A counter that goes on at another pace."""
    kept = samples - last
    return f"{rising(first, kept)} {rising(then, last, start=first * kept)}"


def began(value: float) -> str:
    """A series that is there only since its first count."""
    return f"_x{HALF} {flat(value, REST)}"


def at(name: str, where: str, more: str = "") -> str:
    return f"drxbridge_{name}{{{where}{',' if more else ''}{more}}}"


def firing(alert: str, changes: Series, *, severity: str = PAGE, also: str = "", span: Span = HOURLY) -> Case:
    """The fault of an alert; `also` is the ticket that fires besides: `spool`, `parked`, or that of the same name."""
    besides = {"spool": "SpoolInUse", "parked": "ParkedKeysGrowing", "ticket": alert}
    others = {(besides[also], TICKET)} if also else set()
    return Case(f"{alert}: {severity}", changes, frozenset({(alert, severity), *others}), span)


def quiet(alert: str, why: str, changes: Series, *others: str, span: Span = HOURLY) -> Case:
    """What only comes near; `others` fire at it."""
    fires = {(other, TICKET if other in {"SpoolInUse", "ProduceFailing"} else PAGE) for other in others}
    return Case(f"{alert}: quiet {why}", changes, frozenset(fires), span)


DOWN = f'{POSTS}"unavailable"}}'
REFUSED = f'{POSTS}"refused"}}'
DAYS = Span(LONG, 30)
