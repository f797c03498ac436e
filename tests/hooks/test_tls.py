"""Mutual TLS: who is who, between transports in one process."""

import contextlib
import pickle
import threading
from concurrent import futures
from datetime import UTC, datetime

import pytest
import yaml

grpc = pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

from fedml_gradcam_ae.contract.settings import SettingsError  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo import certificates  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TLSFiles  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.tls import load, rank_of  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.undelivered import UndeliveredError  # noqa: E402
from patience import PATIENCE  # noqa: E402
from silo_processes import wait_for  # noqa: E402
from transports import CHECK, METHOD, SYNC, Network, message, online, request  # noqa: E402

PATTERNS = {"certificate": "certs/rank-{rank}.pem", "key": "certs/rank-{rank}.key", "authority": "certs/authority.pem"}
SECTION = {"tls": PATTERNS, "send_timeout": 20.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """certs/: an authority and ranks 0 to 2; others/: the same of another authority."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("certs", "others"):
        certificates.make(folder / name, clients=2, days=10)
    return folder


@pytest.fixture
def network(folder):
    with contextlib.ExitStack() as stack:
        made = Network(folder, clients=2, server_args=SECTION, client_args=SECTION)
        stack.callback(made.close)
        yield made


def secure(network, folder, rank):
    read = lambda name: (folder / name).read_bytes()  # noqa: E731
    credentials = grpc.ssl_channel_credentials(
        read("certs/authority.pem"), read(f"certs/rank-{rank}.key"), read(f"certs/rank-{rank}.pem")
    )
    options = [("grpc.ssl_target_name_override", "rank-0.fedml")]
    return grpc.secure_channel(f"127.0.0.1:{network.ports[0]}", credentials, options)


def test_messages_go_both_ways(network) -> None:
    server, at_server = network.start(0)
    client, at_client = network.start(1)
    client.send_message(online(1))
    assert at_server.get().get("client_status") == "ONLINE"
    server.send_message(message(SYNC, 0, 1, model_params={}, client_idx="0"))
    assert at_client.get().get_type() == SYNC


def test_a_stranger_without_a_certificate_is_not_heard(network) -> None:
    server, at_server = network.start(0)
    with pytest.raises(grpc.RpcError) as failure:
        network.post(pickle.dumps(online(1)), 1)
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
    assert at_server.inbox.empty()
    assert not server.complaints.counts


def test_a_client_with_a_certificate_of_another_authority_is_not_heard(network, folder) -> None:
    _, at_server = network.start(0)
    paths = {key: path.replace("certs", "others") for key, path in PATTERNS.items()}
    config = folder / "others.yaml"
    config.write_text(yaml.safe_dump({"client_args": {"tls": paths}}))
    client, _ = network.start(1, config=config)
    with pytest.raises(UndeliveredError, match=r"^127\.0\.0\.1:\d+: UNAVAILABLE: ") as failure:
        client.send_message(online(1))
    assert "\n" not in str(failure.value)
    assert at_server.inbox.empty()


def test_a_client_cannot_speak_as_another(network, folder) -> None:
    server, at_server = network.start(0)
    with secure(network, folder, 2) as channel:
        call = channel.unary_unary(METHOD)
        call(request(pickle.dumps(online(1)), 1), timeout=PATIENCE)
        call(request(pickle.dumps(online(1)), 2), timeout=PATIENCE)
        call(request(pickle.dumps(online(2)), 1), timeout=PATIENCE)
        call(request(pickle.dumps(online(2)), 2), timeout=PATIENCE)
    assert at_server.get().get_sender_id() == 2
    assert at_server.inbox.empty()
    assert server.complaints.counts == {"identity": 2, "schema: sender": 1}


def test_a_certificate_of_a_rank_outside_of_the_federation_is_refused(network, folder) -> None:
    server, _ = network.start(0)
    server.expect(100_000, [1])
    with secure(network, folder, 2) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(METHOD)(request(pickle.dumps(online(2)), 2), timeout=PATIENCE)
    assert failure.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert server.complaints.counts == {"certificate": 1}


def test_a_client_takes_no_orders_from_a_client(network, folder) -> None:
    client, at_client = network.start(1)
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("certs/authority.pem", "certs/rank-2.key", "certs/rank-2.pem"))
    )
    options = [("grpc.ssl_target_name_override", "rank-1.fedml")]
    order = request(pickle.dumps(message(CHECK, 0, 1)), 0)
    with (
        grpc.secure_channel(f"127.0.0.1:{network.ports[1]}", credentials, options) as channel,
        pytest.raises(grpc.RpcError) as failure,
    ):
        channel.unary_unary(METHOD)(order, timeout=PATIENCE)
    assert failure.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert client.complaints.counts == {"certificate": 1}
    assert at_client.inbox.empty()


def test_the_server_sends_no_model_to_whoever_listens_at_a_clients_address(network, folder) -> None:
    server, _ = network.start(0)
    files = TLSFiles(**{key: path.replace("{rank}", "2") for key, path in PATTERNS.items()})
    impostor = grpc.server(futures.ThreadPoolExecutor(1))
    impostor.add_secure_port(
        f"127.0.0.1:{network.ports[1]}", load(files, 2, folder, "client_args").server_credentials()
    )
    impostor.start()
    with pytest.raises(UndeliveredError, match=f"127.0.0.1:{network.ports[1]}: UNAVAILABLE: "):
        server.send_message(message(SYNC, 0, 1, model_params={}, client_idx="0"))
    impostor.stop(None)


def test_the_oldest_of_three_calls_of_one_client_goes_and_others_are_heard(network, folder) -> None:
    server, at_server = network.start(0)
    release = threading.Event()

    def never():
        release.wait(60)
        yield b""

    with contextlib.ExitStack() as stack:
        calls = []
        for number in (1, 2, 3):
            channel = stack.enter_context(secure(network, folder, 2))
            calls.append(channel.stream_unary(METHOD).future(never()))
            wait_for(lambda number=number: len(server._receiver.unfinished) == min(number, 2), "the call")
        assert calls[0].exception(timeout=PATIENCE).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not calls[1].done()
        assert not calls[2].done()
        client, _ = network.start(1)
        client.send_message(online(1))
        assert at_server.get().get_sender_id() == 1
        release.set()


def certificate(names):
    """A certificate with these subject alternative names, in PEM format."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rank-1.fedml")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("names", "rank"),
    [
        ([x509.DNSName("rank-3.fedml")], 3),
        ([x509.DNSName("rank-0.fedml")], 0),
        ([x509.DNSName("rank-03.fedml")], None),
        ([x509.DNSName("rank-3.fedml"), x509.DNSName("rank-4.fedml")], None),
        ([x509.DNSName("rank-3.fedml"), x509.DNSName("rank-3.fedml")], None),
        ([x509.DNSName("rank-3.fedml"), x509.DNSName("example.org")], None),
        ([x509.DNSName("rank-3.fedml"), x509.UniformResourceIdentifier("spiffe://silo")], None),
        ([x509.UniformResourceIdentifier("rank-3.fedml")], None),
        ([x509.RFC822Name("rank-3.fedml")], None),
        ([x509.DNSName("rank-3.fedml.example.org")], None),
        ([x509.DNSName("xrank-3.fedml")], None),
        ([x509.DNSName("rank-3.fedml\n")], None),
        ([x509.DNSName("rank-3.fedml\0.example.org")], None),
        ([], None),
    ],
    ids=range(14),
)
def test_which_names_are_ranks(names, rank) -> None:
    assert rank_of({"x509_pem_cert": [certificate(names)]}) == rank


@pytest.mark.parametrize("found", [[], [b""], [b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]])
def test_who_shows_no_certificate_has_no_rank(found) -> None:
    names = {"x509_subject_alternative_name": [b"rank-3.fedml"]}
    assert rank_of({**names, "x509_pem_cert": found}) is None
    assert rank_of(names) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certificate": "certs/rank-9.pem"}, r"tls\.certificate: .*rank-9\.pem cannot be read: No such file"),
        ({"key": "certs/rank-2.key"}, r"tls: the key .*rank-2\.key does not belong to the certificate .*rank-1\.pem"),
        ({"certificate": "certs/rank-1.key"}, r"tls\.certificate: .* holds no certificate in PEM format"),
        ({"key": "certs/rank-1.pem"}, r"tls\.key: .* is no private key without a password"),
        ({"authority": "others/authority.pem"}, r"was not issued by the authority .*others/authority\.pem"),
        (
            {"certificate": "certs/rank-2.pem", "key": "certs/rank-2.key"},
            r"is for rank-2\.fedml, and rank 1 needs rank-1\.fedml",
        ),
        ({"certificate": "old/rank-1.pem", "key": "old/rank-1.key"}, r"old/rank-1\.pem is valid from .*, and today is"),
    ],
)
def test_files_that_cannot_work_are_an_error_at_the_start(folder, changes, words) -> None:
    if words.startswith("old"):
        certificates.make(folder / "old", clients=1, days=0)
    with pytest.raises(SettingsError, match=words):
        load(TLSFiles(**{**PATTERNS, **changes}), 1, folder, "client_args")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"tls": {"certificate": "a"}}, r"server_args\.tls\.key is missing: mutual TLS needs it\."),
        ({"tls": {**PATTERNS, "cert": "x"}}, r"Unknown key 'cert' in server_args\.tls of mutual TLS\."),
        ({"tls": "certs"}, r"server_args\.tls must be a mapping of keys to values, found 'certs'"),
        ({"send_timeout": 0}, r"server_args\.send_timeout: expected greater than 0, found 0"),
    ],
)
def test_mistakes_in_the_section_are_named(tmp_path, section, words) -> None:
    made = Network(tmp_path, server_args=section)
    with pytest.raises(SettingsError, match=words):
        made.make(0)
