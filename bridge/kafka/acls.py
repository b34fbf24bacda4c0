"""Which ACLs a process needs: the least with which it works, by whom and on what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bridge.errors import ConfigError

Resource = Literal["topic", "group"]
Operation = Literal["Describe", "DescribeConfigs", "Read", "Write"]
INGRESS = "ingress"


@dataclass(frozen=True, slots=True)
class Acl:
    """One permission.

    Attributes:
        principal: As Kafka writes it, such as `User:drx-ingress`.
        name: Of the topic or the group, literally.
    """

    principal: str
    resource: Resource
    name: str
    operation: Operation


def ingress_acls(principal: str, topics: Iterable[str]) -> list[Acl]:
    """Return what an ingress needs: it writes its topics, and reads their ends to recognise repeats.

    `DescribeConfigs` is for `topics check` and `doctor`.
    """
    operations: tuple[Operation, ...] = ("Describe", "DescribeConfigs", "Read", "Write")
    return [Acl(principal, "topic", topic, operation) for topic in topics for operation in operations]


def consumer_acls(principal: str, group: str, topics: Iterable[str]) -> list[Acl]:
    """Return what a consumer needs that reads `topics` as a member of `group` and publishes nothing."""
    on = [("topic", topic) for topic in topics] + [("group", group)]
    operations: tuple[Operation, ...] = ("Describe", "Read")
    return [Acl(principal, resource, name, operation) for resource, name in on for operation in operations]  # type: ignore[arg-type]  # a list widens its literals


def read_grant(text: str) -> tuple[str, str]:
    """Read `ingress=USER` or `GROUP=USER`; return the role and the principal.

    Raises:
        ConfigError: It is neither.
    """
    role, equals, user = text.partition("=")
    if not equals or not role or not user.removeprefix("User:"):
        msg = f"{text!r} is neither ingress=USER nor GROUP=USER"
        raise ConfigError(msg)
    return role, user if user.startswith("User:") else f"User:{user}"
