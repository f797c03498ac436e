"""Transports in this process, each with an observer that keeps what it is handed."""

from __future__ import annotations

import pickle
import queue
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import yaml
from fedml.core.distributed.communication.grpc import grpc_comm_manager_pb2
from fedml.core.distributed.communication.message import Message

from fedml_gradcam_ae.hooks.cross_silo.transport.manager import GRPCTransport
from patience import PATIENCE
from silo_processes import free_ports, wait_for

METHOD = "/gRPCCommManager/sendMessage"
ONLINE, UPLOAD, INIT, SYNC, CHECK, FINISH = 5, 3, 1, 2, 6, 7


class Keeper:
    """What FedML's managers are to a transport; `slow` is held while a message is handled."""

    def __init__(self, *types: int) -> None:
        self.message_handler_dict = dict.fromkeys(types)
        self.inbox: queue.Queue[Message] = queue.Queue()
        self.slow = threading.Lock()

    def receive_message(self, kind: int, message: Message) -> None:
        with self.slow:
            if kind != 0:
                self.inbox.put(message)

    def get(self) -> Message:
        return self.inbox.get(timeout=PATIENCE)


class Network:
    """A table of addresses and the transports on it."""

    def __init__(self, folder: Path, clients: int = 2, listed: int | None = None, **sections: Any) -> None:
        self.ports = free_ports(clients + 1)
        rows = [f"{rank},{rank},127.0.0.1,{port}" for rank, port in enumerate(self.ports)][: (listed or clients) + 1]
        self.table = folder / "table.csv"
        self.table.write_text("eid,rank,grpc_server_ip,grpc_server_port\n" + "\n".join(rows) + "\n")
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(sections or {"server_args": {}}))
        self.clients = list(range(1, clients + 1))
        self.running: list[tuple[GRPCTransport, threading.Thread]] = []

    def make(self, rank: int, config: Path | None = None) -> GRPCTransport:
        path = str(config or self.config)
        args = SimpleNamespace(client_id_list=str(self.clients), yaml_config_file=path, rank=rank)
        return GRPCTransport(str(self.table), client_rank=rank, client_num=len(self.clients), args=args)

    def start(self, rank: int, model_bytes: int = 100_000, config: Path | None = None) -> tuple[GRPCTransport, Keeper]:
        transport = self.make(rank, config)
        keeper = Keeper(0, ONLINE, UPLOAD) if rank == 0 else Keeper(0, INIT, SYNC, CHECK, FINISH)
        transport.add_observer(keeper)
        if rank == 0:
            transport.expect(model_bytes, self.clients)
        thread = threading.Thread(target=transport.handle_receive_message, daemon=True)
        thread.start()
        self.running.append((transport, thread))
        wait_for(lambda: self.answers(rank), "a port")
        return transport, keeper

    def answers(self, rank: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[rank])) == 0

    def channel(self, rank: int = 0, **options: Any) -> grpc.Channel:
        """A connection of its own, as an attacker would open it."""
        more = [(f"grpc.{key}", value) for key, value in options.items()]
        always = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.ports[rank]}", options=[*always, *more])

    def post(self, content: bytes, client_id: int, rank: int = 0) -> None:
        """Send bytes as FedML's client would."""
        with self.channel(rank) as channel:
            channel.unary_unary(METHOD)(request(content, client_id), timeout=PATIENCE)

    def close(self) -> None:
        for transport, _ in self.running:
            transport.stop_receive_message()
        for _, thread in self.running:
            thread.join(15)


def request(content: bytes, client_id: int) -> bytes:
    serialized: bytes = grpc_comm_manager_pb2.CommRequest(client_id=client_id, message=content).SerializeToString()
    return serialized


def message(kind: Any, sender: Any, receiver: Any, **parameters: Any) -> Message:
    made = Message(kind, sender, receiver)
    for key, value in parameters.items():
        made.add_params(key, value)
    return made


def online(sender: Any, receiver: Any = 0, **parameters: Any) -> Message:
    return message(ONLINE, sender, receiver, **{"client_status": "ONLINE", "client_os": "linux", **parameters})


def pickled(*arguments: Any, **parameters: Any) -> bytes:
    return pickle.dumps(message(*arguments, **parameters))
