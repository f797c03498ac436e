"""Mutual TLS: both sides show a certificate of the same authority, whose DNS name gives their rank."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.shown import printable
from fedml_gradcam_ae.hooks.cross_silo.certificates import dns_name
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TLSFiles

NAME = re.compile(r"rank-(0|[1-9][0-9]{0,6})\.fedml")  # The DNS name of a rank; see `certificates.dns_name`.


@dataclass(frozen=True, repr=False)
class Identity:
    """TLS files of a process.

    Attributes:
        certificate: the certificate that it shows, in PEM format.
        key: the private key of the certificate, in PEM format.
        authority: the certificate of the authority that it trusts, in PEM format.
    """

    certificate: bytes
    key: bytes
    authority: bytes

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials for listening; the other side must show a certificate as well."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.authority, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials for calling."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def channel_options(receiver: int) -> list[tuple[str, str]]:
    """Return the gRPC options that require the certificate of a rank, whatever the receiver's address is.

    Args:
        receiver: the rank of the receiver.
    """
    return [("grpc.ssl_target_name_override", dns_name(receiver))]


def rank_of(auth_context: Mapping[str, Sequence[bytes]]) -> int | None:
    """Return the rank in the other side's certificate.

    The name is read from the certificate itself. gRPC's list of names does not separate DNS names from URIs and e-mail
    addresses, and cuts each name at its first NUL character.

    Args:
        auth_context: the `auth_context` of a gRPC call.

    Returns:
        The rank, or None if the certificate is for no rank or has further names.
    """
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        return None
    try:
        names = _names(x509.load_pem_x509_certificate(certificates[0]))
    except ValueError:
        return None
    match = NAME.fullmatch(names[0].value) if len(names) == 1 and isinstance(names[0], x509.DNSName) else None
    return None if match is None else int(match.group(1))


def load(files: TLSFiles, rank: int, folder: Path, section: str) -> Identity:
    """Read and check the TLS files of one process.

    Args:
        files: the paths.
        rank: the rank that the certificate must be for.
        folder: the folder that relative paths start from.
        section: the YAML section of the paths, for messages.

    Raises:
        SettingsError: if a file is missing or is not PEM, if the files do not belong together, or if the certificate
            is for another rank or not valid today.
    """
    contents = {key: _read(getattr(files, key), rank, folder, f"{section}.tls.{key}") for key in TLSFiles.model_fields}
    where, paths = f"{section}.tls", {key: path for key, (path, _) in contents.items()}
    chain = _certificates(contents["certificate"], f"{where}.certificate")
    authorities = _certificates(contents["authority"], f"{where}.authority")
    try:
        key = load_pem_private_key(contents["key"][1], None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{where}.key: {paths['key']} is no private key without a password: {error}") from None
    if _public(key.public_key()) != _public(chain[0].public_key()):
        raise SettingsError(
            f"{where}: the key {paths['key']} does not belong to the certificate {paths['certificate']}."
        )
    names = _names(chain[0])
    if names != [x509.DNSName(dns_name(rank))]:
        found = ", ".join(printable(str(name.value)) for name in names) or "no name"
        raise SettingsError(
            f"{where}.certificate: {paths['certificate']} is for {found}, and rank {rank} needs {dns_name(rank)}."
        )
    if len(chain) == 1 and not any(_signed(chain[0], authority) for authority in authorities):
        raise SettingsError(f"{where}: {paths['certificate']} was not issued by the authority {paths['authority']}.")
    return Identity(*(contents[key][1] for key in ("certificate", "key", "authority")))


def _read(pattern: str, rank: int, folder: Path, where: str) -> tuple[Path, bytes]:
    path = folder / pattern.replace("{rank}", str(rank))
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{where}: {path} cannot be read: {error.strerror}.") from None


def _certificates(file: tuple[Path, bytes], where: str) -> list[x509.Certificate]:
    path, content = file
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise SettingsError(f"{where}: {path} holds no certificate in PEM format: {error}") from None
    now = datetime.now(UTC)
    for each in found:
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            span = f"{each.not_valid_before_utc:%Y-%m-%d} to {each.not_valid_after_utc:%Y-%m-%d}"
            raise SettingsError(f"{where}: {path} is valid from {span}, and today is {now:%Y-%m-%d}.")
    return found


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Return a certificate's subject alternative names of all types; empty if they cannot be read."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []


def _public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
