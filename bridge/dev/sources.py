"""The senders that `dev` configures, one for each shipped profile, each with its signing scheme."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bridge.commands.scheme_options import DEFAULT_SCHEME
from bridge.commands.secrets import fresh_secret
from bridge.proof.scheme import Scheme
from bridge.proof.schemes.presets import configure

_OPTIONS: Mapping[str, str] = MappingProxyType({"account_id": "acct_dev", "zone": "America/Chicago"})


class DevSource(NamedTuple):
    """A sender: `parameters` of its scheme, `options` of its profile; risks are accepted on a local stack."""

    profile: str
    scheme: str = DEFAULT_SCHEME
    parameters: Mapping[str, str] = MappingProxyType({})
    options: Mapping[str, str] = MappingProxyType({})
    content_type: str = "application/json"
    accept: str = ""

    def settings(self, name: str, secrets_dir: Path) -> dict[str, str]:
        """Return the settings (environment variables) of a source of this name."""
        values = {
            "PROFILE": self.profile,
            "ENVIRONMENT": "sandbox",
            "SECRETS_DIR": str(secrets_dir),
            "SCHEME": self.scheme,
            **{f"SCHEME_{parameter.upper()}": value for parameter, value in self.parameters.items()},
            **{f"OPTIONS__{option.upper()}": value for option, value in self.options.items()},
            **({"ACCEPT": self.accept} if self.accept else {}),
        }
        return {f"BRIDGE_SOURCES__{name}__{variable}": value for variable, value in values.items()}

    def endpoint(self, name: str, secret_file: Path) -> dict[str, str]:
        """Return path, scheme and secret file, for senders."""
        return {
            "path": f"/webhooks/{name}",
            "profile": self.profile,
            "scheme": self.scheme,
            "secret_file": str(secret_file),
            **self.parameters,
        }

    def new_secret(self) -> str:
        """Create the first line of a slot file."""
        return fresh_secret(self.configured, "dev")

    @property
    def configured(self) -> Scheme:
        """Its scheme, which signs and verifies."""
        return configure(self.scheme, self.parameters, tolerance_s=None)


SOURCES: Mapping[str, DevSource] = MappingProxyType(
    {
        "drx": DevSource("drx_standard"),
        "digitalrx": DevSource(
            "digitalrx_pharmacy",
            scheme="secret_header",
            parameters={"header": "x-webhook-secret"},
            options=_OPTIONS,
            accept="no_tls",
        ),
        "dosespot": DevSource(
            "dosespot_push",
            scheme="secret_header",
            parameters={"header": "Authorization", "word": "Secret"},
            options=_OPTIONS,
            accept="no_tls",
        ),
        "photon": DevSource(
            "photon_cloudevents",
            scheme="body_hmac",
            parameters={
                "header": "X-Photon-Signature",
                "timestamp_header": "X-Photon-Timestamp",
                "template": "{timestamp}.{body}",
                "encoding": "hex",
            },
            options=_OPTIONS,
            content_type="application/cloudevents+json",
        ),
    }
)
