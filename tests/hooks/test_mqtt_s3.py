"""Cross-silo over MQTT + S3: a small broker and moto's S3 server in this process, whatever clients send."""

import contextlib
import json
import logging
import os
import pickle
import re
import threading
import uuid
from types import SimpleNamespace

import boto3
import numpy
import paho.mqtt.client as mqtt
import pytest
import torch

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")
moto = pytest.importorskip("moto.server", reason="no S3 server: pip install 'fedml-gradcam-ae[test]'")

from fedml_gradcam_ae.contract.settings import SettingsError  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.mqtt_s3 import MQTTS3Transport  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.services import services as vendors_or_own  # noqa: E402
from mqtt_broker import Broker  # noqa: E402
from silo_processes import MAIN, Silo, free_ports, honest, wait_for  # noqa: E402
from transports import CHECK, FINISH, INIT, ONLINE, SYNC, UPLOAD, Keeper, message, online  # noqa: E402

MODEL = {"0.weight": torch.arange(6.0).reshape(2, 3)}
RUN = 7


@pytest.fixture(scope="module")
def s3():
    """A bucket and what FedML needs to know of it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"BUCKET_NAME": "fedml", "CN_S3_AKI": "a", "CN_S3_SAK": "b", "CN_S3_ENDPOINT": endpoint}
    client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="a", aws_secret_access_key="b")
    client.create_bucket(Bucket="fedml")
    yield SimpleNamespace(keys=keys, client=client)
    server.stop()


@pytest.fixture
def services(s3):
    """A broker and the bucket, with the transports and clients that a test starts."""
    with contextlib.ExitStack() as stack:
        yield Services(stack, s3)


class Services:
    def __init__(self, stack, s3):
        self.stack, self.s3 = stack, s3
        self.broker = Broker()
        stack.callback(self.broker.close)

    @property
    def mqtt(self):
        return {"BROKER_HOST": "127.0.0.1", "BROKER_PORT": self.broker.port, "MQTT_USER": "u", "MQTT_PWD": "p"}

    def args(self, rank, **more):
        ids = "[1, 2]" if rank == 0 else f"[{rank}]"
        return SimpleNamespace(rank=rank, run_id=RUN, client_id_list=ids, **more)

    def transport(self, rank, **more):
        made = MQTTS3Transport(self.mqtt, self.s3.keys, self.args(rank, **more))
        keeper = Keeper(0, ONLINE, UPLOAD) if rank == 0 else Keeper(0, INIT, SYNC, CHECK, FINISH)
        made.add_observer(keeper)
        if rank == 0:
            made.expect(100_000, [1, 2])
        thread = threading.Thread(target=made.handle_receive_message, daemon=True)
        thread.start()
        self.stack.callback(made.close)
        self.stack.callback(thread.join, 15)
        self.stack.callback(made.stop_receive_message)
        topic = f"fedml_{RUN}_{rank or 1}" if rank == 0 else f"fedml_{RUN}_0_{rank}"
        wait_for(lambda: topic in self.broker.subscribers, "a subscription")
        return made, keeper

    def client(self):
        made = mqtt.Client(client_id=str(uuid.uuid4()))
        made.connect("127.0.0.1", self.broker.port)
        made.loop_start()
        self.stack.callback(made.loop_stop)
        self.stack.callback(made.disconnect)
        return made

    def store(self, content, key=None, client=1):
        key = key or f"fedml_{RUN}_{client}_{uuid.uuid4()}"
        self.s3.client.put_object(Bucket="fedml", Key=key, Body=content)
        return key


def said(kind, sender, receiver=0, **more):
    return json.dumps({"msg_type": kind, "sender": sender, "receiver": receiver, **more}).encode()


def uploaded(key, sender=1, samples=20):
    return said(UPLOAD, sender, model_params=key, num_samples=samples)


def test_messages_go_both_ways_as_fedml_sends_them(services) -> None:
    server, at_server = services.transport(0)
    client, at_client = services.transport(1)
    client.send_message(message(UPLOAD, 1, 0, model_params=MODEL, num_samples=numpy.float32(20), round_number=3))
    upload = at_server.get()
    assert torch.equal(upload.get("model_params")["0.weight"], MODEL["0.weight"])
    assert (upload.get_sender_id(), upload.get("num_samples"), upload.get("round_number")) == (1, 20.0, 3)
    server.send_message(message(SYNC, 0, 1, model_params=MODEL, client_idx="0", rounds=5))
    model = at_client.get()
    assert torch.equal(model.get("model_params")["0.weight"], MODEL["0.weight"])
    assert (model.get("client_idx"), model.get("rounds")) == ("0", 5)
    assert services.broker.retained == {}
    assert dict(server.complaints.counts) == dict(client.complaints.counts) == {}


def test_plain_fedml_talks_to_it_in_both_directions(services, tmp_path, monkeypatch) -> None:
    from fedml.core.distributed.communication.mqtt_s3.mqtt_s3_multi_clients_comm_manager import (
        MqttS3MultiClientsCommManager,
    )

    monkeypatch.setenv("HOME", str(tmp_path))  # it writes models there
    server, at_server = services.transport(0)
    keys = {**services.mqtt, "MQTT_KEEPALIVE": 60}
    plain = MqttS3MultiClientsCommManager(keys, services.s3.keys, str(RUN), 1, 2, services.args(1))
    keeper = Keeper(0, SYNC)
    plain.add_observer(keeper)
    threading.Thread(target=plain.handle_receive_message, daemon=True).start()
    wait_for(lambda: f"fedml_{RUN}_0_1" in services.broker.subscribers, "a subscription")
    plain.send_message(online(1))
    assert at_server.get().get("client_status") == "ONLINE"
    plain.send_message(message(UPLOAD, 1, 0, model_params=MODEL, num_samples=20))
    assert torch.equal(at_server.get().get("model_params")["0.weight"], MODEL["0.weight"])
    server.send_message(message(SYNC, 0, 1, model_params=MODEL, client_idx="0"))
    assert torch.equal(keeper.get().get("model_params")["0.weight"], MODEL["0.weight"])
    plain.stop_receive_message()


def test_one_object_is_for_all_clients_of_a_round(services) -> None:
    server, _ = services.transport(0)
    keepers = [services.transport(rank)[1] for rank in (1, 2)]
    before = len(services.s3.client.list_objects_v2(Bucket="fedml").get("Contents", []))
    for rank in (1, 2):
        server.send_message(message(SYNC, 0, rank, model_params=MODEL, client_idx="0"))
    assert all(torch.equal(keeper.get().get("model_params")["0.weight"], MODEL["0.weight"]) for keeper in keepers)
    assert len(services.s3.client.list_objects_v2(Bucket="fedml")["Contents"]) == before + 1


def test_what_does_not_fit_is_dropped_and_counted(services) -> None:
    server, at_server = services.transport(0)
    stranger = services.client()
    for payload in (
        said(ONLINE, 2, client_status="ONLINE"),  # on the topic of client 1
        said(ONLINE, [1], client_status="ONLINE"),
        said(ONLINE, 1, receiver=2, client_status="ONLINE"),
        said(ONLINE, 1, client_status=["ONLINE"]),
        said(ONLINE, 1, client_status="RICH"),
        said(0, 1),
        said([UPLOAD], 1),
        said({}, 1),
    ):
        stranger.publish(f"fedml_{RUN}_1", payload, qos=2)
    stranger.publish(f"fedml_{RUN}_3", said(ONLINE, 3, client_status="ONLINE"), qos=2)  # no client: not subscribed
    stranger.publish(f"fedml_{RUN}_1", said(ONLINE, 1, client_status="ONLINE"), qos=2)
    assert at_server.get().get_sender_id() == 1  # what came before is gone, and the server is not
    assert dict(server.complaints.counts) == {
        "schema: sender": 2,
        "schema: receiver": 1,
        "schema: client_status": 2,
        "schema: type": 3,
    }


class Exploit:
    """Unpickling it runs a shell command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_what_cannot_be_read_stands_for_an_upload(services, tmp_path, caplog) -> None:
    _, at_server = services.transport(0)
    stranger, marker = services.client(), tmp_path / "the-server-was-mine"
    missing = f"fedml_{RUN}_1_{uuid.uuid4()}"
    for payload, reason in (
        (uploaded(services.store(pickle.dumps({"0.weight": Exploit(marker)}))), "names code: .* found posix.system"),
        (uploaded(services.store(pickle.dumps(Exploit(marker)))), "names code: .* found posix.system"),
        (uploaded(services.store(b"not a pickle")), "broken: no pickle"),
        (uploaded(services.store(b"")), "broken: "),
        (uploaded(services.store(bytes(2_000_000))), "too large: the object has 2000000 bytes, where at most 1400000"),
        (uploaded(missing), f"no object: the object {missing} is not in the bucket"),
        (
            uploaded(services.store(pickle.dumps(MODEL), client=2)),
            f"no object: a key must be fedml_{RUN}_1_ and a UUID",
        ),
        (uploaded(services.store(pickle.dumps(MODEL), key="model")), "no object: a key must be .*, found 'model'"),
        (uploaded(["a", "list"]), "no object: a key must be .*, found a list"),
        (uploaded(""), "it holds no model"),
        (uploaded(services.store(pickle.dumps(MODEL)), samples="many"), "its number of samples must be a plain number"),
        (uploaded(services.store(pickle.dumps(MODEL)), sender=2), "its sender is given as 2"),
        (b"\xff\x00", "broken: it is no JSON"),
        (b"{", "broken: it is no JSON"),
        (b"[]", "broken: it is no JSON object"),
        (b'{"num_samples": 1' + b"0" * 5000 + b"}", "broken: it is no JSON"),
        (b"[" * 60_000, "too deep: "),
        (bytes(100_000), "it has 100000 bytes, where at most 64000 are taken beside the model"),
    ):
        stranger.publish(f"fedml_{RUN}_1", payload, qos=2)
        upload = at_server.get()
        assert (upload.get_type(), upload.get_sender_id()) == (UPLOAD, 1)
        refused = upload.get("model_params")
        assert isinstance(refused, Refused)
        assert re.search(reason, refused.reason), refused.reason
    assert not marker.exists()
    stranger.publish(f"fedml_{RUN}_2", uploaded(services.store(pickle.dumps(MODEL), client=2), sender=2), qos=2)
    assert torch.equal(at_server.get().get("model_params")["0.weight"], MODEL["0.weight"])
    assert "client 1: a message was not read: names code" in caplog.text


def test_clients_obey_their_server_alone_and_unpickle_nothing(services, tmp_path) -> None:
    client, at_client = services.transport(1)
    stranger, marker = services.client(), tmp_path / "the-client-was-mine"
    topic = f"fedml_{RUN}_0_1"
    hostile = services.store(pickle.dumps(Exploit(marker)), key=f"fedml_{RUN}_0_1_{uuid.uuid4()}")
    stranger.publish(topic, said(SYNC, 0, 1, model_params=hostile, client_idx="0"), qos=2)
    stranger.publish(topic, said(FINISH, 2, 1), qos=2)
    stranger.publish(topic, said(CHECK, 0, 1), qos=2)
    assert at_client.get().get_type() == CHECK
    assert not marker.exists()
    assert dict(client.complaints.counts) == {"names code": 1, "schema: sender": 1}


def test_messages_from_before_a_process_subscribed_are_ignored(services) -> None:
    services.broker.hand_on(f"fedml_{RUN}_1", said(ONLINE, 1, client_status="FINISHED"), retain=True)
    _, at_server = services.transport(0)
    services.client().publish(f"fedml_{RUN}_1", said(ONLINE, 1, client_status="ONLINE"), qos=2)
    assert at_server.get().get("client_status") == "ONLINE"


def test_a_broker_that_cannot_be_reached_is_reported_in_one_line(services) -> None:
    (port,) = free_ports(1)
    transport = MQTTS3Transport({**services.mqtt, "BROKER_PORT": port}, services.s3.keys, services.args(0))
    with pytest.raises(SettingsError, match=rf"the MQTT broker 127.0.0.1:{port} cannot be reached: .*refused"):
        transport.expect(1000, [1, 2])


@pytest.mark.parametrize(
    ("broker", "bucket", "found"),
    [
        (
            {"BROKER_PORT": None},
            {},
            "_mqtt_config.BROKER_PORT: expected a valid integer, found None",
        ),
        ({}, {"CN_S3_AKI": None}, "_s3_config.CN_S3_AKI: expected a valid string, found None"),
        ({}, {"CN_S3_ENDPOINT": None}, "CN_S3_ENDPOINT or CN_REGION_NAME must say where the bucket is"),
    ],
)
def test_a_wrong_key_is_reported(services, broker, bucket, found) -> None:
    with pytest.raises(SettingsError, match=found):
        MQTTS3Transport({**services.mqtt, **broker}, {**services.s3.keys, **bucket}, services.args(0))


def test_services_of_the_vendor_that_does_not_answer_are_reported() -> None:
    def ask():
        raise KeyError("mqtt_config")  # as FedML answers where there is no network

    with pytest.raises(SettingsError, match="uses the services of FedML's vendor, which cannot be asked: KeyError"):
        vendors_or_own(SimpleNamespace(get_training_mqtt_s3_config=ask))


class MQTTSilo(Silo):
    """A federation of processes over MQTT + S3."""

    def __init__(self, services, folder, **flat):
        self.services = services
        comm = {
            "backend": "MQTT_S3",
            "customized_training_mqtt_config": {**services.mqtt, "MQTT_KEEPALIVE": 60},
            "customized_training_s3_config": services.s3.keys,
        }
        super().__init__(folder, comm_args=comm, **flat)
        services.stack.callback(self.close)

    def _answers(self):
        return bool(self.services.broker.subscribers.get(f"fedml_{RUN}_1"))

    def say(self, client, kind, **more):
        self.puppet.publish(f"fedml_{RUN}_{client}", said(kind, client, **more), qos=2)

    def upload(self, client, content):
        key = self.services.store(content, client=client)
        self.say(client, UPLOAD, model_params=key, num_samples=20)


def out(line):
    return {client["client"]: client["reason"] for client in line["clients"] if client["excluded"]}


def test_a_hostile_object_a_silent_client_and_a_lost_end_stop_no_server(services, tmp_path) -> None:
    made = MQTTSilo(services, tmp_path, rounds=2, client_timeout=2.0)
    made.puppet, marker = services.client(), tmp_path / "the-server-was-mine"
    made.start_server()
    for client in (1, 2, 3):
        made.say(client, ONLINE, client_status="ONLINE")
    wait_for(lambda: services.broker.seen.count(f"fedml_{RUN}_0_3") >= 2, "the first model", log=made.log)
    for client in (1, 2):
        made.upload(client, pickle.dumps(honest(client)))
    made.upload(3, pickle.dumps({"0.weight": Exploit(marker)}))
    wait_for(lambda: services.broker.seen.count(f"fedml_{RUN}_0_3") >= 3, "the second model", log=made.log)
    for client in (1, 2):
        made.upload(client, pickle.dumps(honest(client)))  # client 3 never uploads
    made.wait_for_end()  # although no client says that it has ended
    first, second = made.rounds()
    assert "names code" in out(first)[3]
    assert [client["client"] for client in second["clients"]] == [1, 2]
    assert not marker.exists()
    assert "round 2: going on without clients 3" in made.log.read_text()
    assert "ending, although clients 1, 2, 3 have not reported that they ended" in made.log.read_text()
    assert "Traceback" not in made.log.read_text()


@pytest.mark.long
def test_a_server_that_is_killed_calls_its_clients_when_it_resumes(services, tmp_path) -> None:
    made = MQTTSilo(services, tmp_path, clients=1, rounds=2, resume=True, checkpoint_dir=str(tmp_path / "state"))
    made.puppet, topic = services.client(), f"fedml_{RUN}_0_1"
    made.start_server()
    made.say(1, ONLINE, client_status="ONLINE")
    wait_for(lambda: services.broker.seen.count(topic) >= 2, "a call and the model", log=made.log)
    made.upload(1, pickle.dumps(honest(1)))
    wait_for(lambda: services.broker.seen.count(topic) >= 3, "the second model", log=made.log)
    made.kill_server()
    wait_for(lambda: not services.broker.subscribers[f"fedml_{RUN}_1"], "the server to be gone")
    made.start_server()
    wait_for(lambda: services.broker.seen.count(topic) >= 4, "a call", log=made.log)
    made.say(1, ONLINE, client_status="ONLINE")
    wait_for(lambda: services.broker.seen.count(topic) >= 5, "the second model again", log=made.log)
    made.upload(1, pickle.dumps(honest(1)))
    made.wait_for_end()
    assert [line["round"] for line in made.rounds()] == [1, 2]


@pytest.mark.long
def test_a_federation_with_a_poisoner_ends_and_leaves_it_out(services, tmp_path) -> None:
    """Two of FedML's own clients, one of which poisons, and one under the plug-in."""
    krum = {"enable_defense": True, "defense_type": "multi_krum", "defense_params": {"malicious": 0, "kept": 2}}
    made = MQTTSilo(services, tmp_path, rounds=2, defense_args=krum)
    clients = [
        made.start_client(1),
        made.start_client(2, plugin=True),
        made.start_client(3, main=MAIN.with_name("poisoner.py")),
    ]
    made.start_server()
    log = made.ends_without_the_poisoner(clients)
    assert "Traceback" not in log
