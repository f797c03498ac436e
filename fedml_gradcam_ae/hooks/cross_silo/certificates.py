"""Certificates for a trial of mutual TLS: an authority, and a certificate for each rank.

Command line: `python -m fedml_gradcam_ae certificates`. The certificate of rank r is for the DNS name `rank-r.fedml`.
The name decides which rank a process may speak for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fedml_gradcam_ae.contract.shown import shown

if TYPE_CHECKING:
    from cryptography import x509

AUTHORITY = "authority"  # Name of the authority's files, without suffix.
MOST_CLIENTS = 10_000  # Largest value of --clients.


def dns_name(rank: int) -> str:
    """Return the DNS name that the certificate of a rank is for.

    Example:
        >>> dns_name(3)
        'rank-3.fedml'
    """
    return f"rank-{rank}.fedml"


def main(argv: Sequence[str]) -> int:
    """Make the files and print what to write into the YAML file.

    Args:
        argv: the command-line options.

    Returns:
        The exit status: 0, or 2 if the files could not be made.

    Raises:
        SystemExit: with status 2 if an option is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fedml_gradcam_ae certificates",
        description="Makes an authority, and a certificate and a key for the server (rank 0) and each client.",
    )
    parser.add_argument("--clients", type=int, required=True, help="how many clients: ranks 1 to this number")
    parser.add_argument("--out", required=True, help="a new folder for the files")
    parser.add_argument("--days", type=int, default=365, help="how long they are valid (default: 365)")
    arguments = parser.parse_args(argv)
    for name, value, largest in (("clients", arguments.clients, MOST_CLIENTS), ("days", arguments.days, 36_500)):
        if not 1 <= value <= largest:
            parser.error(f"--{name} must be from 1 to {largest}, found {value}")
    if not arguments.out:
        parser.error("--out must name a folder, found an empty text")
    if "{" in arguments.out or "}" in arguments.out:
        parser.error(
            f"--out must hold no {{ or }}, which have a meaning in the YAML file, found {shown(arguments.out)}"
        )
    out = Path(arguments.out)
    try:
        make(out, arguments.clients, arguments.days)
    except ImportError:
        print("error: this needs the package cryptography: pip install 'fedml-gradcam-ae[grpc]'", file=sys.stderr)
        return 2
    except FileExistsError as error:
        print(f"error: {error.filename} exists, and nothing is overwritten: choose another --out", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(_advice(out, arguments.clients))
    return 0


def make(folder: Path, clients: int, days: int) -> None:
    """Write `authority.pem`, `authority.key`, and `rank-R.pem` and `rank-R.key` for R from 0 to `clients`.

    Args:
        folder: the folder for the files; made if it does not exist.
        clients: the number of clients; rank 0 is the server.
        days: the number of days for which the certificates are valid.

    Raises:
        FileExistsError: if any of the files exists; then no file is written.
        ImportError: if the package cryptography is missing.
        OSError: if the folder cannot be written to.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder.mkdir(parents=True, exist_ok=True)
    names = [AUTHORITY, *(f"rank-{rank}" for rank in range(clients + 1))]
    for path in (folder / f"{name}{suffix}" for name in names for suffix in (".pem", ".key")):
        if os.path.lexists(path):  # true for a dangling symbolic link as well
            raise FileExistsError(17, "File exists", str(path))
    now = datetime.now(UTC)

    def issue(
        name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None, by: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public, authority = key.public_key(), issuer is None
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            # Clocks differ between machines, and a new certificate must be valid on all of them.
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
            .add_extension(_usage(authority), critical=True)
        )
        if not authority:
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        return builder.sign(by, hashes.SHA256())

    def write(name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        content = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        _write_new(folder / f"{name}.key", content, 0o600)
        _write_new(folder / f"{name}.pem", certificate.public_bytes(pem), 0o644)

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = issue("fedml-gradcam-ae trial authority", authority_key, None, authority_key)
    write(AUTHORITY, authority, authority_key)
    for rank in range(clients + 1):
        key = ec.generate_private_key(ec.SECP256R1())
        write(f"rank-{rank}", issue(dns_name(rank), key, authority.subject, authority_key), key)


def _usage(authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    flags = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    return x509.KeyUsage(**{**flags, "key_cert_sign" if authority else "digital_signature": True})


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that does not exist yet; it has its final permissions from the moment it is created."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _advice(folder: Path, clients: int) -> str:
    keys = f"""\
  tls:
    certificate: {folder}/rank-{{rank}}.pem
    key: {folder}/rank-{{rank}}.key
    authority: {folder}/{AUTHORITY}.pem"""
    return f"""\
Made an authority and the certificates of the server (rank 0) and of clients 1 to {clients} in {folder}.

Write into the YAML file (paths start from its folder; {{rank}} becomes the rank of each process):

server_args:
{keys}
client_args:
{keys}

Give each process its own rank-R.pem and rank-R.key and {AUTHORITY}.pem, and nothing more. Whoever holds
{AUTHORITY}.key can make certificates for any rank: keep it off the machines of the federation, or delete it."""
