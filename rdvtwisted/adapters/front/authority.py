"""The server's own certificate authority, and the certificate that the TLS door shows."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from attrs import define
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.adapters.front import secretfile
from rdvtwisted.adapters.front.encryption import Credentials
from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import InvalidValue, StateDirectoryError

#: How long the authority's certificate is good; devices pin it.
AUTHORITY_LIFE = timedelta(days=30 * 365 + 7)
#: How long the server's certificate is good from when it is made.
SERVER_LIFE = timedelta(days=397)
#: From when on certificates are good: a device without a battery for its clock may believe in any day of the past.
BEGIN = datetime(2000, 1, 1, tzinfo=timezone.utc)
#: No clock that is behind this one is right; one that starts anew without a battery believes in 1970, 2000, 2010.
EARLIEST = datetime(2024, 1, 1, tzinfo=timezone.utc)
#: A server certificate is renewed when less than this part of its life is left.
RENEWAL_PART = 3

#: Each holds a private key and its certificate, so that the two cannot come apart.
AUTHORITY_FILE = "authority.pem"
SERVER_FILE = "server.pem"

_DNS_NAME = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def server_name(text: str) -> x509.GeneralName:
    """
    A DNS name or IP address, for a certificate.

    @raise InvalidValue: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if _DNS_NAME.fullmatch(text) is None:
        raise InvalidValue("server name", text, "use a DNS name or an IP address")
    return x509.DNSName(text.lower())


@define(eq=False)
class Authority:
    """
    The authority of one server: its own certificate never changes, the server's is kept up to date.

    Any number of processes may open the same directory; what one of them
    makes, the others find by L{credentials}.
    """

    _directory: Path
    _names: tuple[x509.GeneralName, ...]
    _clock: IReactorTime
    _key: ec.EllipticCurvePrivateKey
    #: The authority's certificate, which devices pin.
    certificate: x509.Certificate

    _log = Logger()

    @classmethod
    def open(cls, directory: Path, names: Sequence[str], clock: IReactorTime) -> Authority:
        """
        The authority kept in C{directory}; both are made if they are not there.

        @param names: the DNS names and IP addresses under which devices reach the server; at least one.
        @param clock: its seconds are those since the epoch.
        @raise StateDirectoryError: the directory or a file in it cannot be used; or the clock is so wrong that an
            authority would be made which has ended when the clock is right.
        @raise InvalidValue: a name is no name.
        """
        if not names:
            raise InvalidValue("server name", "", "give at least one DNS name or IP address for the certificate")
        wanted = tuple(dict.fromkeys(server_name(name) for name in names))
        secretfile.prepare(directory)
        path = directory / AUTHORITY_FILE
        held = secretfile.read(path)
        if held is None:
            if _now(clock) < EARLIEST:
                raise StateDirectoryError(
                    f"the clock of this machine says {_now(clock):%Y-%m-%d}, too early for a certificate authority to"
                    " be made: set it right first"
                )
            held = secretfile.create(path, _pem(*_new_authority(_now(clock))))
        key, certificate = _load(path, held, "restore it from a backup")
        if not certificate.not_valid_before_utc <= _now(clock) < certificate.not_valid_after_utc:
            raise StateDirectoryError(
                f"{path}: the authority is good from {certificate.not_valid_before_utc:%Y-%m-%d}"
                f" to {certificate.not_valid_after_utc:%Y-%m-%d} only; is the clock right?"
            )
        return cls(directory, wanted, clock, key, certificate)

    @property
    def der(self) -> bytes:
        """The authority's certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The authority's certificate, PEM, to give away."""
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """C{SHA256:} and the digest of the DER certificate in hexadecimal."""
        return "SHA256:" + hashlib.sha256(self.der).hexdigest()

    def credentials(self) -> Credentials:
        """
        What the door is to show now: what the directory holds, renewed first
        when it is due. To be asked at start and once a day.

        @raise StateDirectoryError: the file cannot be used.
        """
        path = self._directory / SERVER_FILE
        held = secretfile.read(path)
        if held is None:
            return self.renew()
        key, certificate = _load(path, held, "remove it, and a new one is made")
        if self._is_due(certificate):
            return self.renew()
        return Credentials(key, certificate, self.certificate)

    def renew(self) -> Credentials:
        """
        Make a new key and certificate for the server, and keep them.

        @raise StateDirectoryError: they cannot be kept.
        """
        key, certificate = self._new_server()
        write_whole(self._directory / SERVER_FILE, _pem(key, certificate))
        self._log.info(
            "new server certificate for {names}, good until {end}",
            names=", ".join(str(name.value) for name in self._names),
            end=f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        )
        return Credentials(key, certificate, self.certificate)

    def _is_due(self, certificate: x509.Certificate) -> bool:
        """Whether a server certificate is not of this authority, not for the wanted names, or too old."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
            return True
        left = certificate.not_valid_after_utc - _now(self._clock)
        return (
            set(names) != set(self._names)
            or certificate.not_valid_before_utc != BEGIN
            or not SERVER_LIFE / RENEWAL_PART <= left <= SERVER_LIFE
        )

    def _new_server(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _draft("RDV server", self.certificate.subject, key)
            .not_valid_after(min(_now(self._clock) + SERVER_LIFE, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(self._names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return key, certificate


def _now(clock: IReactorTime) -> datetime:
    return datetime.fromtimestamp(int(clock.seconds()), timezone.utc)


def _new_authority(now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The name tells this authority from others in a list of trusted ones.
    digest = hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    name = f"RDV authority {digest.hexdigest()[:8]}"
    certificate = (
        _draft(name, None, key)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _draft(name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """What both kinds of certificate have; without an issuer it is its own."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)


def _load(path: Path, held: bytes, cure: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """
    The key and the certificate of a file's content.

    @raise StateDirectoryError: it does not hold the two, or they do not belong together.
    """
    try:
        key = load_pem_private_key(held, password=None)
        certificate = x509.load_pem_x509_certificate(held)
        belongs = certificate.public_key() == key.public_key()
    except (ValueError, TypeError):
        raise StateDirectoryError(f"{path} is damaged: {cure}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not belongs:
        raise StateDirectoryError(f"{path} is damaged: its key and certificate do not belong together; {cure}")
    return key, certificate
