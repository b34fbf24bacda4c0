"""The workflows that the shipped rules of the consumer `workflow` start: an example of what a site would write.

Nothing here may ask the clock, the network or a random number: Temporal runs it again from its history. What has to be
told to the outside, an activity tells.
"""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

# A pharmacy without a response calls the practice after some days, and the patient has run out after two weeks.
REMIND_AFTER = timedelta(days=3)
ESCALATE_AFTER = timedelta(days=14)
# The worker decides where an action goes: `worker.py`.
TELL = "tell"


async def tell(word: str, about: dict[str, Any]) -> None:
    """Let the worker notify people, with retries until it works."""
    await workflow.execute_activity(
        TELL,
        args=[word, about],
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(maximum_interval=timedelta(minutes=5)),
    )


class Request:
    """Base: a question to the practice. It reminds, escalates, and ends with the response or when it is closed."""

    def __init__(self) -> None:
        """Wait for a signal."""
        self._ended = ""

    async def follow(self, about: dict[str, Any]) -> str:
        """Return the reason for its end."""
        if not await self._ends_within(REMIND_AFTER):
            await tell("remind", about)
        if not await self._ends_within(ESCALATE_AFTER - REMIND_AFTER):
            await tell("escalate", about)
        await workflow.wait_condition(lambda: bool(self._ended))
        return self._ended

    async def _ends_within(self, time: timedelta) -> bool:
        try:
            await workflow.wait_condition(lambda: bool(self._ended), timeout=time)
        except TimeoutError:
            return False
        return True

    @workflow.signal
    def asked(self, _event: dict[str, Any]) -> None:
        """Store the request; it may arrive repeatedly, and after its response."""

    @workflow.signal
    def answered(self, event: dict[str, Any]) -> None:
        """Store a response; a repeat changes nothing."""
        self._ended = self._ended or str(event["event_id"])

    @workflow.signal
    def closed(self, event: dict[str, Any]) -> None:
        """Store that a response is no longer expected."""
        self._ended = self._ended or str(event["event_id"])


@workflow.defn
class Renewal(Request):
    """A pharmacy asks for more refills."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> str:
        """Run until it ends."""
        return await self.follow(event)


@workflow.defn
class Change(Request):
    """A pharmacy asks for another medicine, or for what it needs to dispense this one."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> str:
        """Run until it ends."""
        return await self.follow(event)


@workflow.defn
class Cancel(Request):
    """The practice asks a pharmacy to cancel."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> str:
        """Run until it ends."""
        return await self.follow(event)


@workflow.defn
class Overdue:
    """An item has waited longer than its timer: escalate at once, and end when the wait is over."""

    def __init__(self) -> None:
        """Create the state of the wait."""
        self._resolved = False

    @workflow.run
    async def run(self, wait: dict[str, Any]) -> None:
        """Notify people, now and when the wait is over."""
        await tell("escalate", wait)
        await workflow.wait_condition(lambda: self._resolved)
        await tell("over", wait)

    @workflow.signal
    def resolved(self, _wait: dict[str, Any]) -> None:
        """Store that the wait is over."""
        self._resolved = True


@workflow.defn
class Repair:
    """A message did not get through, or could not be signed: somebody has to act."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> None:
        """Notify people."""
        await tell("repair", event)


@workflow.defn
class Alert:
    """DRx has raised an alert."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> None:
        """Notify people."""
        await tell("alert", event)


ALL = (Renewal, Change, Cancel, Overdue, Repair, Alert)
