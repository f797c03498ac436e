"""The cross-silo server's rounds, such that neither a client nor the server itself can make one hang for ever."""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch
from fedml import mlops
from fedml.core import Context
from fedml.cross_silo.server import server_initializer
from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager
from fedml.cross_silo.server.message_define import MyMessage

from fedml_gradcam_ae.federation import ClientId
from fedml_gradcam_ae.hooks import round
from fedml_gradcam_ae.hooks.cross_silo.aggregator import HookedAggregator
from fedml_gradcam_ae.hooks.cross_silo.checkpoint import Checkpoint
from fedml_gradcam_ae.hooks.cross_silo.settings import read_server_settings
from fedml_gradcam_ae.hooks.patching import Patches

log = logging.getLogger("fedml_gradcam_ae")


def patch(patches: Patches) -> None:
    """Put our server and our aggregator where FedML's initializer looks them up."""
    patches.replace(
        server_initializer,
        "FedMLAggregator",
        HookedAggregator,
        mends="a defense learns neither who uploaded nor on what network, and one broken upload stops the server",
    )
    patches.replace(
        server_initializer,
        "FedMLServerManager",
        DependableServer,
        mends="waits for ever for a client that died; takes uploads nobody asked for; forgets all when killed",
    )


class DependableServer(FedMLServerManager):  # type: ignore[misc]  # fedml has no types
    """FedMLServerManager with a time limit per round, clients that come and go, and a state that survives.

    An upload carries no round number. But a client answers the models that it is sent one by one and in order, so the
    server counts: an upload is for this round only if it answers the last model sent to that client.
    """

    def __init__(self, args: Any, aggregator: HookedAggregator, *rest: Any, **keywords: Any) -> None:
        self.settings = read_server_settings(args)
        super().__init__(args, aggregator, *rest, **keywords)
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._unanswered: dict[ClientId, int] = {}
        self._models_sent: dict[ClientId, int] = {}
        self._uploads: dict[ClientId, Any] = {}
        self._over = False
        self._failure: Exception | None = None
        self._checkpoint = None
        if self.settings.checkpoint_dir is not None:
            self._checkpoint = Checkpoint(self.settings.checkpoint_dir)
        self._resumed = self._checkpoint is not None and self.settings.resume and self._restore()

    def run(self) -> None:
        """Serve until the last round is over."""
        try:
            round.prepare(self.aggregator.network, self.aggregator.test_global)
            with round.watched(self.args):
                super().run()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            # An error must end the process: a transport that still listens would keep it alive.
            self.com_manager.stop_receive_message()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def handle_message_connection_ready(self, msg_params: Any) -> None:
        """The server is up: bound the messages, and call the clients."""
        if self.is_initialized:
            return
        self._select_clients()
        self._bound_messages()
        mlops.log_round_info(self.round_num, -1)
        if self.backend != "GRPC" or self._resumed:
            # Over gRPC a client that starts tells the server by itself; one that was there before does not.
            for client, silo in zip(self.client_id_list_in_this_round, self.data_silo_index_list, strict=True):
                self._try_to_send(client, self.send_message_check_client_status, client, silo)
        self._start_timer()

    def process_online_status(self, client_status: Any, msg_params: Any) -> None:
        """A client has started, or answers a call."""
        client = msg_params.get_sender_id()
        with self._lock:
            if client not in self.client_real_ids:
                log.warning("client %s: a message of a client that is not in the federation was ignored", client)
                return
            known = self.client_online_mapping.get(str(client), False)
            self.client_online_mapping[str(client)] = True
            self.client_finished_mapping[str(client)] = False
            if self._over:
                self._try_to_send(client, self.send_message_finish, client, 0)
            elif not self.is_initialized:
                if all(self.client_online_mapping.get(str(c), False) for c in self.client_id_list_in_this_round):
                    self._start()
            elif client in self.client_id_list_in_this_round:
                log.info("round %d: client %s is back%s", self._number, client, " (it was restarted)" if known else "")
                # A new process: what the old one owed will never come.
                self._unanswered[client] = self._models_sent[client] = 0
                if client not in self._uploads:
                    self._send_model(client, first=True)

    def process_finished_status(self, client_status: Any, msg_params: Any) -> None:
        """A client has ended."""
        with self._lock:
            client = str(msg_params.get_sender_id())
            self.client_finished_mapping[client] = True
            self.client_online_mapping[client] = False
            if self._over:
                self._finish_when_all_have()
                return
            # FedML's client counts its rounds: one that trained a round twice, for a server that was killed and for
            # this one, ends a round early. Nobody need wait for it.
            log.warning("round %d: client %s has ended, before the last round", self._number, client)
            if all(self.client_finished_mapping.get(str(c), False) for c in self.client_real_ids):
                log.warning("all clients have ended: stopping after round %d of %d", self._number - 1, self.round_num)
                self._over = True
                self.finish()
            elif self.is_initialized:
                self._finish_round_when_complete()

    def handle_message_receive_model_from_client(self, msg_params: Any) -> None:
        """An upload."""
        client = msg_params.get_sender_id()
        with self._lock:
            refusal = self._refusal(client)
            if refusal is not None:
                log.warning("round %d: client %s: an upload was ignored: %s", self._number, client, refusal)
                return
            mlops.event("comm_c2s", event_started=False, event_value=str(self.args.round_idx), event_edge_id=client)
            samples = msg_params.get(MyMessage.MSG_ARG_KEY_NUM_SAMPLES)
            self._uploads[client] = (samples, msg_params.get(MyMessage.MSG_ARG_KEY_MODEL_PARAMS))
            self._finish_round_when_complete()

    def _finish_round_when_complete(self) -> None:
        """Once everybody who can still answer has."""
        ended = {client for client in self.client_real_ids if self.client_finished_mapping.get(str(client), False)}
        if self._uploads and all(c in self._uploads or c in ended for c in self.client_id_list_in_this_round):
            self._finish_round()

    @property
    def _number(self) -> int:
        """The round t, from 1."""
        return int(self.args.round_idx) + 1

    def _refusal(self, client: ClientId) -> str | None:
        """Why an upload of this client is not for this round, or None if it is."""
        if self._over or not self.is_initialized:
            return "no round is running"
        if client not in self.client_real_ids:
            return "the client is not in the federation"
        if client not in self.client_id_list_in_this_round:
            return "the client does not take part in this round"
        if self._unanswered.get(client, 0) == 0:
            return "it was not asked for, or has come before"
        self._unanswered[client] -= 1
        if self._unanswered[client] > 0:
            return "it is for an earlier round"
        return None

    def _select_clients(self) -> None:
        """Who takes part in this round, and with which data silo."""
        index = self.args.round_idx
        chosen = self.aggregator.client_selection(index, self.client_real_ids, self.args.client_num_per_round)
        self.client_id_list_in_this_round = [int(client) for client in chosen]
        silos = self.aggregator.data_silo_selection(index, self.args.client_num_in_total, len(chosen))
        self.data_silo_index_list = [int(silo) for silo in silos]
        Context().add(Context.KEY_CLIENT_ID_LIST_IN_THIS_ROUND, self.client_id_list_in_this_round)

    def _start(self) -> None:
        """The first round of this process."""
        self.is_initialized = True
        mlops.log_aggregation_status(MyMessage.MSG_MLOPS_SERVER_STATUS_RUNNING)
        if self._number > self.round_num:
            self._end()
        else:
            self._start_round(first=not self._resumed)

    def _start_round(self, first: bool = False) -> None:
        self._select_clients()
        self._uploads = {}
        mlops.event("server.wait", event_started=True, event_value=str(self.args.round_idx))
        for client in self.client_id_list_in_this_round:
            self._send_model(client, first)
        self._start_timer()

    def _send_model(self, client: int, first: bool) -> None:
        """Ask a client to train from the global model; FedML's clients take the first one in another message."""
        model = self.aggregator.get_global_model_params()
        silo = self.data_silo_index_list[self.client_id_list_in_this_round.index(client)]
        send = self.send_message_init_config if first else self.send_message_sync_model_to_client
        if self._try_to_send(client, send, client, model, silo):
            self._unanswered[client] = self._unanswered.get(client, 0) + 1
            self._models_sent[client] = self._models_sent.get(client, 0) + 1

    def _try_to_send(self, client: ClientId, send: Any, *arguments: Any) -> bool:
        """Send a message; a client that cannot be reached is noted, and the round goes on."""
        try:
            send(*arguments)
        except Exception as error:  # each transport has its own errors
            reason = error.details() if hasattr(error, "details") else error  # what gRPC has to say, in one line
            log.warning("round %d: client %s cannot be reached: %s", self._number, client, reason)
            self.client_online_mapping[str(client)] = False
            return False
        return True

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.settings.client_timeout is not None:
            self._timer = threading.Timer(self.settings.client_timeout, self._when_time_is_over, [self.args.round_idx])
            self._timer.daemon = True
            self._timer.start()

    def _when_time_is_over(self, round_idx: int) -> None:
        """The timer's thread, where an error would be lost: `run` raises it."""
        try:
            self._time_is_over(round_idx)
        except Exception as error:
            self._failure = error
            self.com_manager.stop_receive_message()

    def _time_is_over(self, round_idx: int) -> None:
        """Go on with those who answered, if they are enough."""
        with self._lock:
            if round_idx != self.args.round_idx and not self._over:
                return
            if self._over:
                self.finish()
                return
            here = self._uploads
            if not self.is_initialized:
                here = {client: None for client in self.client_id_list_in_this_round if self._is_online(client)}
            if len(here) < self.settings.minimum_clients:
                log.warning(
                    "round %d: %d of %d clients answered in %g s, and minimum_clients is %d: waiting on",
                    *(self._number, len(here), len(self.client_id_list_in_this_round), self.settings.client_timeout),
                    self.settings.minimum_clients,
                )
                self._start_timer()
                return
            missing = [str(client) for client in self.client_id_list_in_this_round if client not in here]
            if self.is_initialized:
                log.warning("round %d: going on without clients %s", self._number, ", ".join(missing))
                self._finish_round()
            else:
                log.warning("starting without clients %s", ", ".join(missing))
                self._start()

    def _is_online(self, client: ClientId) -> bool:
        return bool(self.client_online_mapping.get(str(client), False))

    def _finish_round(self) -> None:
        """All uploads are here, or the time is over: aggregate, test, save, and go on."""
        if self._timer is not None:
            self._timer.cancel()
        index = self.args.round_idx
        mlops.event("server.wait", event_started=False, event_value=str(index))
        mlops.event("server.agg_and_eval", event_started=True, event_value=str(index))
        order = [client for client in self.client_id_list_in_this_round if client in self._uploads]
        silos = dict(zip(self.client_id_list_in_this_round, self.data_silo_index_list, strict=True))
        data = self.aggregator.train_data_local_dict or {}
        kept = self.aggregator.aggregate_uploads(
            number=self._number,
            uploads={client: self._uploads[client] for client in order},
            clients=self.client_real_ids,
            local_data={client: data.get(silos[client]) for client in order},
        )
        self._uploads = {}
        Context().add(Context.KEY_CLIENT_ID_LIST_IN_THIS_ROUND, kept)
        self.aggregator.test_on_server_for_all_clients(index)
        self.aggregator.assess_contribution()
        mlops.event("server.agg_and_eval", event_started=False, event_value=str(index))
        mlops.log_round_info(self.round_num, index)
        self.args.round_idx += 1
        self._save()
        if self.args.round_idx < self.round_num:
            self._start_round()
        else:
            self._end()

    def _end(self) -> None:
        """The last round is over: give the clients the final model, or tell them to stop, and wait for them."""
        self._over = True
        mlops.stop_sys_perf()
        mlops.log_aggregation_finished_status()
        model = self.aggregator.get_global_model_params()
        for client, silo in zip(self.client_id_list_in_this_round, self.data_silo_index_list, strict=True):
            if self._models_sent.get(client) == self.round_num:
                # It has counted to the last round and stops by itself when it gets another model.
                sent = self._try_to_send(client, self.send_message_sync_model_to_client, client, model, silo)
            else:
                sent = self._try_to_send(client, self.send_message_finish, client, silo)
            if not sent:
                self.client_finished_mapping[str(client)] = True
        self._start_timer()
        self._finish_when_all_have()

    def _finish_when_all_have(self) -> None:
        if all(self.client_finished_mapping.get(str(client), False) for client in self.client_id_list_in_this_round):
            self.finish()

    def _save(self) -> None:
        if self._checkpoint is not None:
            defense = round.defense()
            state = defense.state() if hasattr(defense, "state") else {}
            self._checkpoint.save(self.args.round_idx, self.aggregator.get_global_model_params(), state)

    def _restore(self) -> bool:
        assert self._checkpoint is not None
        saved = self._checkpoint.load()
        if saved is None:
            log.info("nothing to resume from in %s: starting with round 1", self.settings.checkpoint_dir)
            return False
        self.args.round_idx = saved.rounds_done
        self.aggregator.set_global_model_params(saved.model)
        defense = round.defense()
        if hasattr(defense, "restore"):
            defense.restore(saved.defense)
        for client in self.settings.release:
            if hasattr(defense, "release"):
                defense.release(client)
                log.info("client %s is released: it is judged like any other again", client)
        log.info("going on after round %d, from %s", saved.rounds_done, self.settings.checkpoint_dir)
        return True

    def _bound_messages(self) -> None:
        """Over gRPC: no message may be much larger than the model."""
        servicer = getattr(self.com_manager, "grpc_servicer", None)
        if servicer is not None:
            model = self.aggregator.get_global_model_params().values()
            size = sum(tensor.numel() * tensor.element_size() for tensor in model if isinstance(tensor, torch.Tensor))
            servicer.largest_message = int(self.settings.largest_upload * size) + 1_000_000
