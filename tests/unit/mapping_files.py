"""Mapping files for the tests: a valid one, and changes of its lines."""

from typing import Any

from bridge.mapping.mapped import MappingFile, compile_mapping

ACME = """\
prefix = "acme:"
zone = "America/New_York"
drop = ["/patient/ssn"]

[[event]]
when = "kind == 'STATE'"
type = "fulfillment.status_changed"
key = "rx.id"
[event.data]
queue_id = "rx.id"
fulfillment_status = "words(state, `{\\"IN_WORK\\":\\"in_progress\\",\\"DONE\\":\\"packed\\"}`)"
"""
BODY: dict[str, Any] = {"kind": "STATE", "rx": {"id": "7"}, "state": "DONE"}
ACCOUNT = {"account_id": "acct_1"}


def compiled(text: str = ACME, **options: str) -> MappingFile:
    return compile_mapping(text.encode(), "acme.toml", ACCOUNT | options)


def with_lines(*lines: str, data: str = "") -> MappingFile:
    """Compile the valid file with further lines of its event, and of the event's data."""
    head, event = ACME.split("[[event]]\n")
    return compiled("\n".join([head, "[[event]]", *lines, event + data, ""]))
