import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import new
from pathlib import Path

import aiohttp
import pytest

from bridge.dev.ports import HOST, free_port
from bridge.proof.scheme import FixedSecrets, KeySlot
from bridge.proof.schemes.presets import configure
from tests.builders import a_body
from tests.certificates import Authority
from tests.component.test_ingress import a_source, running
from tests.integration.proxies import serving

PAGE = (Path(__file__).parents[2] / "docs" / "client-certificates.md").read_text(encoding="utf-8")
JSON = {"content-type": "application/json"}
# What stands around a recipe, and where its fingerprint is.
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
"""
AROUND = {"haproxy": (HAPROXY, "sha256"), "nginx": ("", "sha1")}


@contextmanager
def proxying(name: str, directory: Path, *, bridge: int) -> Iterator[int]:
    found = re.search(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    port = free_port()
    recipe = found[1].replace("/etc/proxy", str(directory)).replace("127.0.0.1:8080", f"{HOST}:{bridge}")
    recipe = recipe.replace("bind :443", f"bind {HOST}:{port}").replace("listen 443", f"listen {HOST}:{port}")
    with serving(name, AROUND[name][0] + recipe.replace("/webhooks/acme", "/webhooks/drx"), port, directory):
        yield port


def a_client(authority: Authority, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


@pytest.mark.parametrize("name", AROUND)
async def test_a_recipe_of_the_page(name: str, tmp_path: Path) -> None:
    kind = AROUND[name][1]
    own, vendor, other = (Authority(tmp_path / f"{each}.pem") for each in ("own", "vendor-ca", "other"))
    certificate, key = own.issue("server")
    (tmp_path / "server.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    right, another, foreign = vendor.issue("right"), vendor.issue("another"), other.issue("foreign")
    fingerprint = new(kind, ssl.PEM_cert_to_DER_cert(right[0].read_text())).hexdigest()
    header = f"x-client-cert-{kind}"
    assert header in PAGE.lower()
    scheme = configure("cidr+secret_header", {"networks": "127.0.0.1/32", "header": header}, tolerance_s=300)
    secrets = FixedSecrets((KeySlot("current", scheme.parse_keys([fingerprint])),))

    async with running(sources=[a_source(scheme=scheme, secrets=secrets)]) as ingress:
        with proxying(name, tmp_path, bridge=ingress.port) as port:

            async def post(pair: tuple[Path, Path] | None, headers: Mapping[str, str] | None = None) -> int | str:
                url = f"https://{HOST}:{port}/webhooks/drx"
                connector = aiohttp.TCPConnector(ssl=a_client(own, pair), force_close=True)
                async with aiohttp.ClientSession(connector=connector) as session:
                    try:
                        async with session.post(url, data=a_body(), headers={**JSON, **(headers or {})}) as answer:
                            return answer.status
                    except (aiohttp.ClientError, ssl.SSLError):
                        return "ended"

            forged = {header: fingerprint}
            assert await post(right) == 200
            assert await post(right, {header: "0" * len(fingerprint)}) == 200
            assert await post(another) == 401
            assert await post(another, forged) == 401
            assert await post(foreign, forged) in {400, "ended"}
            assert await post(None, forged) in {400, "ended"}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))) as session,
            session.post(f"{ingress.url}/webhooks/drx", data=a_body(), headers=JSON | forged) as answer,
        ):
            assert answer.status == 401
        assert len(ingress.publisher.published) == 1


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_the_fingerprint_of_the_page_is_that_of_the_certificate(kind: str, tmp_path: Path) -> None:
    certificate, _ = Authority(tmp_path / "ca.pem").issue("vendor")
    (line,) = re.findall(rf"^openssl .*{kind}sum.*$", PAGE, re.MULTILINE)
    command = line.partition(" > ")[0]

    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603, S607 - of our page

    assert done.stdout.strip() == new(kind, ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
