"""Schema ids to write records with: from the bundled lock or from the configured registry."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Counter

from bridge.avro.codec import Codec
from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError, ConfigError, NotDurableError
from bridge.kafka.routing import RoutingTable
from bridge.registry.address import RegistryAddress
from bridge.registry.loader import bundled
from bridge.registry.lock import NAMESPACE
from bridge.runtime.configuration import masked_url
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log

# Seconds between two attempts to fetch the ids; short, since nothing can be published before.
RETRY_S = 2.0

RECORDS: Mapping[str, str] = {kind: f"{NAMESPACE}.{model.__name__}" for kind, model in EVENT_MODELS.items()}
"""Event type to full record name."""


class SchemaIds:
    """A worker that fetches the ids once; no request waits for the registry (docs/adr/0003-schema-evolution.md)."""

    def __init__(
        self, registry: RegistryAddress, *, ids_file: Path | None, routing: RoutingTable, requests: Counter
    ) -> None:
        """Without a registry, use the lock; `ids_file` caches the registry's ids for the next start."""
        self._registry = registry
        self._ids_file = ids_file
        self._lock = bundled()
        self._routing = routing
        self._requests = requests
        for outcome in ("ok", "failed"):
            requests.labels(outcome)  # exists before the first one, so that `rate` sees it
        self._codec: Codec | None = None
        if registry.url is None:
            self._codec = Codec(schemas=self._lock.schemas(), ids=self._lock.ids())

    @property
    def known(self) -> bool:
        """True when records can be written."""
        return self._codec is not None

    def encode(self, record: str, value: Mapping[str, object] | bytes) -> bytes:
        """Return the payload of one record, as `Codec.encode`."""
        if self._codec is None:
            raise NotDurableError("schema_ids_unknown")
        return self._codec.encode(record, value)

    async def run(self, stop: asyncio.Event) -> None:
        """Fetch the ids, retrying until they are known, then wait for `stop`."""
        while not self.known and not stop.is_set():
            try:
                await self._learn()
            except BridgeError as exc:
                if isinstance(exc, ConfigError):
                    raise
                self._requests.labels("failed").inc()
                log.warning("worker.schema_ids_unknown", code=exc.code, address=masked_url(self._registry.url or ""))
                await pause(stop, RETRY_S)
        await stop.wait()

    async def _learn(self) -> None:
        # Imported only if a registry is configured.
        from bridge.registry.client import open_client  # noqa: PLC0415
        from bridge.registry.ids import newest, resolve_ids, wanted  # noqa: PLC0415

        schemas = wanted(newest(self._lock), self._routing.topics_of_type)
        async with open_client(self._registry) as client:
            ids = await resolve_ids(schemas, registry=client, path=self._ids_file)
        self._requests.labels("ok").inc()
        self._codec = Codec(schemas=self._lock.schemas(), ids=ids)
        log.info("worker.schema_ids_known")
