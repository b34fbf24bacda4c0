"""One delivery through all of it: a row in PostgreSQL, a signed webhook, a line of a Parquet file."""

import json
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

from tests.builders import SECRET
from tests.docker import images
from tests.integration.service_process import until
from tests.kubernetes.playing import timed
from tests.kubernetes.site import Release, Site, an_object, node_port, restricted_pod
from tests.postgres import execute

# The receiver of `dev`, for others than this machine's loopback address.
_RECEIVER = """
import pathlib
from aiohttp import web
from bridge.dev.receiver import receiver_app
app = receiver_app(pathlib.Path("/secrets"))
app.middlewares.clear()
web.run_app(app, port=8000, print=None)
"""
_READ = """
import json, os, pathlib, pyarrow.parquet as parquet
files = pathlib.Path(os.environ["CONSUMER_ARCHIVE__ROOT"]).glob("events/**/*.parquet")
print(json.dumps([line for file in files for line in parquet.read_table(file)["event_id"].to_pylist()]))
"""
_POSTGRES = {"existingSecret": "drx-read-model-postgres"}
_FROM_FIRST = {"enabled": True, "from": "earliest"}


def test_a_delivery_is_a_row_a_webhook_and_a_line(site: Site) -> None:
    image = site.kubernetes.image(images.own, lock="requirements-archive.lock")
    with timed("K2", "ingress, read model, `forward` and `archive`"), site.release(image=image, volumes=2) as release:
        _prepare(release, image)
        each = {"enabled": True, "replicas": 1, "postgres": _POSTGRES, "init": _FROM_FIRST, "egress": []}
        release.install(
            release.values(
                consumers__read_model=each,
                consumers__forward={
                    **each,
                    "options": {
                        "url": "http://receiver:8000/",
                        "allow_http": True,
                        "secrets_dir": {"secret": "signing"},
                    },
                    "egress": [{"ports": [{"port": 8000}]}],
                },
                consumers__archive={**each, "options": {"root": {"claim": "lake"}, "wait_s": 1}},
            ),
            "--wait",
        )
        event_id, key = f"evt_{uuid4().hex}", f"rx_{uuid4().hex}"
        assert release.post(id=event_id, data_prescription_id=key) == "accepted"

        query = f"select event_id from read_model.event where prescription_id = '{key}'"  # noqa: S608 - ours
        assert until(lambda: execute(release.database.here, query)[0], what="a row") == [(event_id,)]
        (webhook,) = until(lambda: [one for one in _received(release) if event_id in one["body"]], what="a webhook")
        assert (webhook["refused"], webhook["headers"]["webhook-id"]) == ("", event_id)
        until(lambda: _archived(release).count(event_id) == 1, what="a line of a file")


def _prepare(release: Release, image: str) -> None:
    """Create a receiver for `forward`, its secret, and a volume for `archive`."""
    release.kubectl("create", "secret", "generic", "signing", f"--from-literal=current={SECRET}")
    mounts = [{"name": "secrets", "mountPath": "/secrets"}]
    spec = restricted_pod("receiver", image, ["python", "-c", _RECEIVER], volumeMounts=mounts)
    spec["volumes"] = [{"name": "secrets", "secret": {"secretName": "signing"}}]
    receiver = an_object("Pod", "receiver", spec=spec)
    receiver["metadata"]["labels"] = {"app": "receiver"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    release.apply(
        receiver,
        node_port("receiver", {"app": "receiver"}, http=8000),
        an_object("PersistentVolumeClaim", "lake", spec=claim),
    )


def _received(release: Release) -> list[dict[str, Any]]:
    with urlopen(release.url("receiver", "/received"), timeout=30) as answer:  # noqa: S310 - ours
        found: list[dict[str, Any]] = json.loads(answer.read())
        return found


def _archived(release: Release) -> list[str]:
    (pod,) = release.pods("archive")
    found: list[str] = json.loads(release.kubectl("exec", pod, "--", "python", "-c", _READ))
    return found
