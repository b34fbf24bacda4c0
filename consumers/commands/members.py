"""What commands ask before they move or remove a group: that nobody is in it."""

from __future__ import annotations

from bridge.errors import ConfigError
from consumers.commands.installed import Chosen
from consumers.runtime.groups import GroupView


async def refuse_members(view: GroupView, chosen: Chosen) -> None:
    """Refuse a group that a process is, or lately was, a member of.

    Raises:
        ConfigError: It has members.
    """
    group, state = chosen.consumer.group, await view.state()
    if state.live:
        msg = (
            f"group {group} has {state.members} members: stop them first; one that was killed counts for"
            f" another {chosen.settings.kafka.session_s:g} s"
        )
        raise ConfigError(msg)
