"""Certificates for test servers: valid for the loopback address, signed by a test CA."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=1)


def self_signed(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Create a certificate for 127.0.0.1; return a server's context with it, and the CA file for clients.

    `chain.pem` in the same folder has the certificate and its key, which a client may use, too.
    """
    # Two certificates are needed: rustls does not accept a CA certificate as a server's.
    authority = Authority(directory / "authority.pem")
    certificate, key = authority.issue("127.0.0.1")
    (directory / "chain.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, authority.certificate


class Authority:
    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self._key = ec.generate_private_key(ec.SECP256R1())
        extension = x509.BasicConstraints(ca=True, path_length=None)
        certificate.write_bytes(self._signed(certificate.stem, self._key, extension, ends=_VALID))

    def issue(self, name: str, *, ends: timedelta = _VALID) -> tuple[Path, Path]:
        """Write a certificate of this name, replacing an earlier one; return its file and that of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        files = self.certificate.with_name(f"{name}.crt"), self.certificate.with_name(f"{name}.key")
        address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        files[0].write_bytes(self._signed(name, key, address, ends=ends))
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
        return files

    def _signed(
        self, name: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, *, ends: timedelta
    ) -> bytes:
        issuer, subject = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (self.certificate.stem, name)
        )
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
