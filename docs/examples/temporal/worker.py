"""Runs the workflows of `workflows.py`: `python worker.py`, with a Temporal server at `TEMPORAL_ADDRESS`.

`ESCALATION_URL` gets a POST for each word that a workflow has to tell; without it the words are printed.
`CODEC_KEY_DIR` has the keys of `CONSUMER_WORKFLOW__CODEC_KEY_DIR`, where whole events are sent.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from temporalio import activity
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.worker import Worker
from workflows import ALL, TELL

from consumers.workflow.temporal import EncryptedPayloads, read_codec_keys


class Desk:
    """Notifies people of the actions of workflows."""

    def __init__(self, session: aiohttp.ClientSession, url: str | None) -> None:
        """Post to `url`, or print without one."""
        self._session = session
        self._url = url

    @activity.defn(name=TELL)
    async def tell(self, word: str, about: dict[str, Any]) -> None:
        """Post an action; a retry has the same key."""
        info = activity.info()
        key = f"{info.workflow_id}:{info.activity_id}"
        if self._url is None:
            print(word, key, flush=True)  # noqa: T201 - what it is for
            return
        async with self._session.post(
            self._url, json={"word": word, "about": about}, headers={"idempotency-key": key}
        ) as answer:
            answer.raise_for_status()


async def main() -> None:
    """Work until interrupted."""
    keys = os.environ.get("CODEC_KEY_DIR")
    codec = EncryptedPayloads(read_codec_keys(Path(keys))) if keys else None
    client = await Client.connect(
        os.environ["TEMPORAL_ADDRESS"],
        namespace=os.environ.get("TEMPORAL_NAMESPACE", "default"),
        data_converter=replace(DataConverter.default, payload_codec=codec),
    )
    async with aiohttp.ClientSession() as session:
        desk = Desk(session, os.environ.get("ESCALATION_URL"))
        # `drx` is the task queue of the shipped rules.
        await Worker(client, task_queue="drx", workflows=ALL, activities=[desk.tell]).run()


if __name__ == "__main__":
    asyncio.run(main())
