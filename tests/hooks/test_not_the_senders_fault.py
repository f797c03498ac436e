"""Trouble of a service, and messages of those that have nothing to say: neither counts against a client."""

from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.decoding import Envelope, Undecodable
from fedml_gradcam_ae.hooks.cross_silo.transport import envelope as schema
from fedml_gradcam_ae.hooks.cross_silo.transport import intake, objects
from fedml_gradcam_ae.hooks.cross_silo.transport.between_ranks import MPITransport
from fedml_gradcam_ae.hooks.cross_silo.transport.settings import TransportSettings
from tiny import fedml_args

KEY = "fedml_0_1_key"


def bucket_that(answer, timeout=60.0) -> objects.Objects:
    """Objects whose S3 client answers each request by calling `answer`."""
    found = object.__new__(objects.Objects)
    found._bucket, found._timeout = "bucket", timeout
    found._client = SimpleNamespace(get_object=lambda **_: answer())
    return found


def raising(error):
    def answer():
        raise error

    return answer


def refused(code, status) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    "error",
    [
        refused("SlowDown", 503),
        refused("TooMany", 429),
        EndpointConnectionError(endpoint_url="http://s3"),
        OSError("cut"),
    ],
)
def test_a_service_that_fails_is_not_the_clients_fault(error) -> None:
    with pytest.raises(intake.NotNowError, match="S3: "):
        bucket_that(raising(error)).fetch(KEY, 100)


@pytest.mark.parametrize("error", [refused("NoSuchKey", 404), refused("AccessDenied", 403)])
def test_an_object_that_is_missing_or_forbidden_is(error) -> None:
    with pytest.raises(Undecodable, match=KEY):
        bucket_that(raising(error)).fetch(KEY, 100)


def test_an_object_that_comes_byte_by_byte_has_an_end() -> None:
    body = SimpleNamespace(read=lambda _most: b".", close=lambda: None)
    with pytest.raises(intake.NotNowError, match="the object took more than 0 s"):
        bucket_that(lambda: {"ContentLength": 10, "Body": body}, timeout=0).fetch(KEY, 10**9)


def test_an_object_is_read_up_to_its_limit() -> None:
    for size in (5, 6):
        left = [b"x" * size, b""]
        body = SimpleNamespace(read=lambda most, left=left: left.pop(0)[:most], close=lambda: None)
        answer = {"ContentLength": 1, "Body": body}  # a length that is not true
        if size == 5:
            assert bucket_that(lambda answer=answer: answer).fetch(KEY, 5) == b"xxxxx"
        else:
            with pytest.raises(Undecodable, match="at most 5"):
                bucket_that(lambda answer=answer: answer).fetch(KEY, 5)


def test_a_message_whose_object_cannot_be_had_is_read_again(monkeypatch) -> None:
    monkeypatch.setattr(intake, "AGAIN_SECONDS", 0)
    tries = []

    def decode(sender, content, budget) -> Envelope:
        tries.append(sender)
        if len(tries) < 3:
            raise intake.NotNowError("S3: down")
        return Envelope(schema.UPLOAD, 1, 0, {"model_params": {}, "num_samples": 5, "client_idx": 1})

    got = []
    manager = SimpleNamespace(
        message_handler_dict={schema.UPLOAD: None}, receive_message=lambda kind, message: got.append(message)
    )
    queue = intake.Intake(0, TransportSettings(), [manager], decode=decode, receivers=lambda: [0])
    queue.put(1, b"{}")
    queue.serve(lambda: not got and len(tries) < 9)
    assert tries == [1, 1, 1]
    assert isinstance(got[0], Message)


class Comm:
    """A communicator with one message of a rank waiting."""

    def __init__(self, sender: int) -> None:
        self.sender, self.taken = sender, False

    def Improbe(self, status):  # noqa: N802
        from mpi4py import MPI

        status.Set_source(self.sender)
        status.Set_elements(MPI.BYTE, 3)
        return self

    def Recv(self, _buffer) -> None:  # noqa: N802
        self.taken = True


@pytest.mark.parametrize(("sender", "waits"), [(0, True), (2, False)])
def test_a_client_over_mpi_hears_its_server_alone(sender, waits) -> None:
    pytest.importorskip("mpi4py.MPI")
    comm = Comm(sender)
    client = MPITransport(comm, 1, fedml_args())
    client._members = frozenset([0])
    assert client._receive_one()
    assert comm.taken
    assert (client._intake.inbox.get(0) is not None) == waits
