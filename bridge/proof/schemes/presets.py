"""Build a scheme by its configured name: a kind, a preset for a vendor, or a combination of several."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from bridge.proof.scheme import Scheme
from bridge.proof.schemes.parameters import ParameterError, Parameters


class Preset(NamedTuple):
    """A kind with the parameters that a vendor documents; a source may override each."""

    kind: str
    parameters: Mapping[str, str]


# Module and class; a process loads only the modules of its sources.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "standard_webhooks": "standard_webhooks:StandardWebhooks",
        "body_hmac": "body_hmac:BodyHmac",
        "ed25519": "public_key:Ed25519",
        "secret_header": "shared_secret:SecretHeader",
        "basic": "shared_secret:Basic",
        "url_token": "shared_secret:UrlToken",
        "cidr": "network:Cidr",
        "jwt": "token:Jwt",
    }
)
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # GitHub Docs, "Validating webhook deliveries", and "Webhook events and payloads" for the id.
        "github": Preset(
            "body_hmac", {"header": "X-Hub-Signature-256", "prefix": "sha256=", "id_header": "X-GitHub-Delivery"}
        ),
        # Stripe Docs, "Verify webhook signatures manually".
        "stripe": Preset(
            "body_hmac", {"header": "Stripe-Signature", "format": "pairs", "template": "{timestamp}.{body}"}
        ),
        # Shopify Docs, "Verify webhook deliveries": base64 of HMAC-SHA256 over the body.
        "shopify": Preset(
            "body_hmac", {"header": "X-Shopify-Hmac-Sha256", "encoding": "base64", "id_header": "X-Shopify-Webhook-Id"}
        ),
        # Photon Docs, "Signature Verification": hex of HMAC-SHA256. It lists a timestamp header, but its example
        # signs the body alone, so sources must set `template`. Without {timestamp} in it, that header is not read.
        "photon": Preset("body_hmac", {"header": "X-Photon-Signature", "timestamp_header": "X-Photon-Timestamp"}),
        # DoseSpot's push notifications: `Authorization: Secret …`.
        "dosespot": Preset("secret_header", {"header": "Authorization", "word": "Secret"}),
    }
)
# DigitalRX prescribes no scheme: a source must name the one that the pharmacy has agreed on.
NO_DEFAULT_SCHEME: Mapping[str, str] = MappingProxyType({"digitalrx": "secret_header, basic or url_token"})


def configure(text: str, given: Mapping[str, str], *, tolerance_s: int | None) -> Scheme:
    """Build a scheme from a name in `KINDS` or `PRESETS`; schemes joined by `+` must all verify a delivery.

    `given` has the parameters without the prefix `scheme_`; each belongs to the first scheme with a parameter of this
    name. A verified timestamp may be off by `tolerance_s` (None: no limit). Raises `ParameterError` if a parameter is
    unknown, missing or invalid.
    """
    left = dict(given)
    names = [name.strip() for name in text.split("+")]
    parts = [_part(name, left, tolerance_s) for name in names]
    if left:
        name = f"scheme_{next(iter(left))}"
        meanings = [_meaning(each) for each in names if each in PRESETS]
        raise ParameterError(name, "; ".join((f"is not a parameter of {text}", *meanings)))
    kinds = [part.name for part in parts]
    if len(set(kinds)) < len(kinds):
        raise ParameterError("scheme", f"{text} combines a scheme with itself")
    if len(parts) == 1:
        return parts[0]
    from bridge.proof.schemes.combined import Combined  # noqa: PLC0415 - as `KINDS`

    return Combined(parts)


def _meaning(name: str) -> str:
    """Describe a preset for messages."""
    kind, parameters = PRESETS[name]
    return f"{name} is {kind} with {', '.join(f'scheme_{key}={value}' for key, value in parameters.items())}"


def _part(name: str, left: dict[str, str], tolerance_s: int | None) -> Scheme:
    if name in NO_DEFAULT_SCHEME:
        raise ParameterError("scheme", f"{name} prescribes no scheme; set {NO_DEFAULT_SCHEME[name]}")
    kind, preset = PRESETS.get(name, Preset(name, {}))
    if kind not in KINDS:
        raise ParameterError("scheme", f"no scheme has this name; known: {', '.join((*KINDS, *PRESETS))}")
    if name == "photon":
        if "template" not in left:
            raise ParameterError(
                "scheme_template", "is required by photon: the signed text, {body} or {timestamp}.{body}"
            )
        if "{timestamp}" not in left["template"]:
            preset = {key: value for key, value in preset.items() if key != "timestamp_header"}
    module, _, class_name = KINDS[kind].partition(":")
    scheme_class: Any = getattr(import_module(f"{__package__}.{module}"), class_name)
    own_arguments = {"standard_webhooks": (tolerance_s,), "basic": ()}
    parameters = Parameters(name, given=left, preset=preset, tolerance_s=tolerance_s)
    return cast("Scheme", scheme_class(*own_arguments.get(kind, (parameters,))))
