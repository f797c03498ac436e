"""Cross-silo server that neither a client nor a restart of the server can leave waiting forever."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fedml import mlops
from fedml.core import Context
from fedml.cross_silo.server import server_initializer
from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager
from fedml.cross_silo.server.message_define import MyMessage
from torch import Tensor

from fedml_gradcam_ae.contract.shown import shown
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.cross_silo.aggregator import HookedAggregator
from fedml_gradcam_ae.hooks.cross_silo.complaints import Complaints
from fedml_gradcam_ae.hooks.cross_silo.numbering import PROCESS, ROUND, ROUNDS, process_name
from fedml_gradcam_ae.hooks.cross_silo.outbox import Outbox
from fedml_gradcam_ae.hooks.cross_silo.persistence import Persistence
from fedml_gradcam_ae.hooks.cross_silo.roll import Do, Phase, Roll
from fedml_gradcam_ae.hooks.cross_silo.settings import read_server_settings
from fedml_gradcam_ae.hooks.cross_silo.transport import close, init_transport
from fedml_gradcam_ae.hooks.patching import Patches

log = logging.getLogger("fedml_gradcam_ae")

LAST_WORDS_SECONDS = 2.0  # Maximum time for which a server that ends waits until its last messages are sent.

MODELS = (MyMessage.MSG_TYPE_S2C_INIT_CONFIG, MyMessage.MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT)  # Messages with a model.


def patch(patches: Patches) -> None:
    """Replace the server and the aggregator in the module where FedML's initializer looks them up."""
    patches.replace(
        server_initializer,
        "FedMLAggregator",
        HookedAggregator,
        mends="a defense gets neither the clients' ids nor the network, and one broken upload stops the server",
    )
    patches.replace(
        server_initializer,
        "FedMLServerManager",
        DependableServer,
        mends="waits forever for a client that died; accepts uploads it did not ask for; loses its state when killed; "
        "over MQTT + S3 and MPI it runs code from uploads",
    )


class DependableServer(FedMLServerManager):  # type: ignore[misc]  # fedml has no types
    """FedMLServerManager with a time limit per round, clients that may leave and return, and a saved state.

    `Roll` decides what each message of a client means, and this class carries out the decisions. All of this happens
    under one lock, in one of three threads: the receiving thread, the timer's, or that of a message that could not be
    delivered. Messages are sent by the outbox, never under the lock.

    Args:
        args: FedML's args.
        aggregator: the aggregator.
        rest: further arguments of FedML's class.
        keywords: further keyword arguments of FedML's class.

    Raises:
        SettingsError: if the checkpoint cannot be used.
    """

    def __init__(self, args: Any, aggregator: HookedAggregator, *rest: Any, **keywords: Any) -> None:
        self.settings = read_server_settings(args)
        self._persistence = Persistence(args, self.settings)
        # The state is restored before the port opens, since a state that does not fit ends the process.
        rounds_done = self._persistence.restore(aggregator)
        super().__init__(args, aggregator, *rest, **keywords)
        self.args.round_idx = rounds_done
        self._roll = Roll(self.client_real_ids, self.settings.minimum_clients)
        self._lock = threading.RLock()
        self._outbox = Outbox(self.com_manager.send_message, self._undelivered)
        self._complaints = Complaints()
        self._timer: threading.Timer | None = None
        self._ready = self._over = self._stopped = False
        self._failure: BaseException | None = None
        self._silos: dict[int, int] = {}
        self._model: Any = None
        _expect(self.com_manager, aggregator, self.client_real_ids)

    def _init_manager(self) -> None:
        init_transport(self, super()._init_manager)

    def run(self) -> None:
        """Serve until the last round is over.

        Raises:
            SettingsError: if the state cannot be saved.
            ValueError: if the defense cannot work with the network or the data.
            Exception: any error that occurred in another thread while it handled a message.
        """
        failed = True
        try:
            aggregation.prepare(self.aggregator.network, self.aggregator.test_global)
            with aggregation.run_listeners(self.args):
                self._persistence.try_out(self.aggregator)
                super().run()
            self._outbox.drain(LAST_WORDS_SECONDS)
            if self._failure is not None:
                raise self._failure
            if (left := self._roll.to_dismiss()) and hasattr(self.com_manager, "leave"):
                self.com_manager.leave(", ".join(map(str, left)))
            failed = False
        except BaseException:
            # An error must end the process, which a listening transport would keep alive.
            self.com_manager.stop_receive_message()
            raise
        finally:
            with self._lock:
                self._over = True
                self._cancel_timer()
            close(self.com_manager, failed)

    # Methods that the transport calls.

    def receive_message(self, msg_type: Any, msg_params: Any) -> None:
        """Handle a message.

        FedML's own method compares and logs the sender, which may be an arbitrary object.

        Args:
            msg_type: the type of the message; messages of unknown types are ignored.
            msg_params: the message.
        """
        handler = self.message_handler_dict.get(msg_type) if isinstance(msg_type, int | str) else None
        if handler is not None:
            handler(msg_params)

    def handle_message_connection_ready(self, msg_params: Any) -> None:
        """Choose the clients of the first round once the server listens, and call those that may be running."""

        def work() -> None:
            if self._ready:
                return
            self._ready = True
            self._choose_clients()
            mlops.log_round_info(self.round_num, -1)
            if self.backend == "MQTT_S3" or (self.backend == "GRPC" and self.settings.resume):
                # A starting client reports by itself. What it said before the server was there is lost over MQTT, and
                # a client that served the server before this one says nothing.
                for client in self._roll.chosen:
                    self._roll.called(client, echoes=self.backend == "MQTT_S3")
                    self.send_message_check_client_status(client, self._silos[client])
            self._start_timer(self.settings.client_timeout)

        self._react(work)

    def handle_message_client_status_update(self, msg_params: Any) -> None:
        """Handle a client's report that it is online or has ended."""
        sender, status = msg_params.get_sender_id(), msg_params.get(MyMessage.MSG_ARG_KEY_CLIENT_STATUS)
        process = process_name(msg_params.get(PROCESS))

        def work() -> None:
            client = self._roll.member(sender)
            if client is None:
                self._complain(None, sender, ": a message of a client that is not in the federation was ignored")
            elif type(status) is str and status == self.ONLINE_STATUS_FLAG:
                self._hear_online(client, process)
            elif type(status) is str and status == self.RUN_FINISHED_STATUS_FLAG:
                self._hear_finished(client)
            else:
                self._complain(client, client, ": a status other than ONLINE and FINISHED was ignored")

        self._react(work)

    def handle_message_receive_model_from_client(self, msg_params: Any) -> None:
        """Accept an upload, if it is for this round."""
        sender, number = msg_params.get_sender_id(), msg_params.get(ROUND)
        upload = msg_params.get(MyMessage.MSG_ARG_KEY_NUM_SAMPLES), msg_params.get(MyMessage.MSG_ARG_KEY_MODEL_PARAMS)

        def work() -> None:
            client = self._roll.member(sender)
            refusal = self._roll.upload(client, number, upload)
            if refusal is not None:
                self._complain(client, sender, f": an upload was ignored: {refusal}")
                return
            mlops.event("comm_c2s", event_started=False, event_value=str(self.args.round_idx), event_edge_id=sender)
            self._carry_out(self._roll.settle())

        self._react(work)

    def finish(self) -> None:
        """Stop receiving; FedML's own method would also end MPI, from any thread."""
        self.com_manager.stop_receive_message()

    def send_message(self, message: Any) -> None:
        """Hand a message to the outbox; messages with a model get their round number."""
        kind, receiver = message.get_type(), int(message.get_receiver_id())
        if kind in MODELS:
            message.add_params(ROUND, self._number)
            message.add_params(ROUNDS, int(self.round_num))
        replaced = self._outbox.put(receiver, message, "model" if kind in MODELS else str(kind))
        if replaced is not None:
            self._roll.withdrawn(receiver, replaced.get(ROUND))

    # Methods that run under the lock.

    def _react(self, work: Callable[[], None]) -> None:
        """Call `work` under the lock, from any thread; an error in it ends `run`, which raises the error."""
        try:
            with self._lock:
                if not self._over:
                    work()
        except Exception as error:
            self._failure, self._over = error, True
        with self._lock:
            stop = self._over and not self._stopped
            self._stopped |= stop
        if stop:
            self.finish()

    def _carry_out(self, decision: Do) -> None:
        if decision is Do.START:
            self._start()
        elif decision is Do.AGGREGATE:
            self._finish_round()
        elif decision is Do.STOP:
            if self._roll.phase is not Phase.OVER:
                log.warning("all clients have ended: stopping after round %d of %d", self._number - 1, self.round_num)
            self._over = True

    def _hear_online(self, client: int, process: str | None) -> None:
        restarted = self._roll.was_restarted(client, process)
        decision = self._roll.online(client, process, time.monotonic())
        if decision is Do.ASK:
            log.info("round %d: client %s is back%s", self._number, client, " (it was restarted)" if restarted else "")
            self._ask(client)
        elif decision is Do.DISMISS:
            self.send_message_finish(client, self._silos.get(client, 0))
        else:
            self._carry_out(decision)

    def _hear_finished(self, client: int) -> None:
        if not self._roll.may_finish(client):
            self._complain(client, client, ": it reports that it has ended, but was never online: ignored")
            return
        if self._roll.phase is not Phase.OVER and not self._roll.clients[client].ended:
            # FedML's client counts the rounds that it trains. If it trained a round twice, for a killed server and
            # for this one, it ends one round early.
            self._complain(client, client, " has ended, before the last round")
        decision = self._roll.finished(client)
        if decision is Do.NOTHING and self._roll.phase is Phase.RUNNING and not self._roll.can_be_enough():
            few = f": fewer than minimum_clients, {self._roll.minimum}, can still answer"
            self._complain(client, client, f"{few}: waiting for it to be started again")
        self._carry_out(decision)

    def _undelivered(self, receiver: int, message: Any, reason: str) -> None:
        """Handle that a message did not reach a client; the outbox calls this from another thread."""

        def work() -> None:
            client = self._roll.member(receiver)
            if client is not None:
                self._complain(client, client, f" cannot be reached: {reason}"[:300])
                self._carry_out(self._roll.undelivered(client, message.get(ROUND)))

        self._react(work)

    def _complain(self, client: int | None, sender: object, text: str) -> None:
        kind = "stranger" if client is None else f"client {client}"
        self._complaints.report(kind, f"round {self._number}: client {shown(sender)}{text}")

    @property
    def _number(self) -> int:
        """Return the round t, counted from 1."""
        return int(self.args.round_idx) + 1

    def _choose_clients(self) -> None:
        """Choose the clients of this round and the data silo of each."""
        index = self.args.round_idx
        chosen = self.aggregator.client_selection(index, self.client_real_ids, self.args.client_num_per_round)
        silos = self.aggregator.data_silo_selection(index, self.args.client_num_in_total, len(chosen))
        self.client_id_list_in_this_round = [int(client) for client in chosen]
        self.data_silo_index_list = [int(silo) for silo in silos]
        self._silos = dict(zip(self.client_id_list_in_this_round, self.data_silo_index_list, strict=True))
        self._roll.choose(self._number, self.client_id_list_in_this_round)
        Context().add(Context.KEY_CLIENT_ID_LIST_IN_THIS_ROUND, self.client_id_list_in_this_round)

    def _start(self) -> None:
        """Start the first round of this process, or end the run if a restored state has all rounds."""
        self.is_initialized = True
        self._roll.start()
        mlops.log_aggregation_status(MyMessage.MSG_MLOPS_SERVER_STATUS_RUNNING)
        if self._number > self.round_num:
            self._end()
        else:
            self._start_round()

    def _start_round(self) -> None:
        self._choose_clients()
        self._take_model()
        mlops.event("server.wait", event_started=True, event_value=str(self.args.round_idx))
        for client in self._roll.to_ask():
            self._ask(client)
        self._start_timer(self.settings.client_timeout)
        self._carry_out(self._roll.settle())

    def _take_model(self) -> None:
        """Copy the global model for messages, since they may be sent after the model has changed."""
        self._model = copy.deepcopy(self.aggregator.get_global_model_params())

    def _ask(self, client: int) -> None:
        """Ask a client to train from the global model.

        FedML's clients accept the first model once, in a message type of its own. If the server resumes, a client may
        have had its first model from the server before, so the type for later models is used.
        """
        send = self.send_message_sync_model_to_client
        if not self.settings.resume and self._roll.clients[client].received == 0:
            send = self.send_message_init_config
        send(client, self._model, self._silos[client])
        self._roll.asked(client, time.monotonic())

    def _start_timer(self, seconds: float | None) -> None:
        self._cancel_timer()
        if seconds is not None:
            timer = threading.Timer(seconds, lambda: self._react(lambda: self._time_is_over(timer)))
            timer.daemon = True
            self._timer = timer
            timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_over(self, timer: threading.Timer) -> None:
        """Continue with the clients that answered, if they are enough."""
        if timer is not self._timer:
            return  # the timer had fired already when it was canceled
        decision, missing = self._roll.time_is_over(), ", ".join(map(str, self._roll.missing()))
        if decision is Do.NOTHING:
            log.warning(
                "round %d: %d of %d clients answered in %g s, and minimum_clients is %d: still waiting",
                *(self._number, len(self._roll.here()), len(self._roll.chosen), self.settings.client_timeout),
                self.settings.minimum_clients,
            )
            self._start_timer(self.settings.client_timeout)
        elif decision is Do.AGGREGATE:
            log.warning("round %d: going on without clients %s", self._number, missing)
        elif decision is Do.START:
            log.warning("starting without clients %s", missing)
        elif left := self._roll.to_dismiss():
            log.warning("ending, although clients %s have not reported that they ended", ", ".join(map(str, left)))
        self._carry_out(decision)

    def _finish_round(self) -> None:
        """Aggregate, test and save a round whose uploads are here or whose time is over; then start the next."""
        self._cancel_timer()
        index = self.args.round_idx
        mlops.event("server.wait", event_started=False, event_value=str(index))
        mlops.event("server.agg_and_eval", event_started=True, event_value=str(index))
        data = self.aggregator.train_data_local_dict or {}
        kept = self.aggregator.aggregate_uploads(
            number=self._number,
            uploads={client: self._roll.uploads[client] for client in self._roll.here()},
            clients=self.client_real_ids,
            local_data={client: data.get(self._silos[client]) for client in self._roll.here()},
        )
        Context().add(Context.KEY_CLIENT_ID_LIST_IN_THIS_ROUND, kept)
        self.aggregator.test_on_server_for_all_clients(index)
        self.aggregator.assess_contribution()
        mlops.event("server.agg_and_eval", event_started=False, event_value=str(index))
        mlops.log_round_info(self.round_num, index)
        self.args.round_idx += 1
        self._persistence.save(self.args.round_idx, self.aggregator)
        if self.args.round_idx < self.round_num:
            self._start_round()
        else:
            self._end()

    def _end(self) -> None:
        """End the run: send the clients the final model or the order to stop, and wait for them."""
        self._roll.end()
        mlops.stop_sys_perf()
        mlops.log_aggregation_finished_status()
        self._take_model()
        for client in self._roll.to_dismiss():
            known, silo = self._roll.clients[client], self._silos.get(client, 0)
            if known.process is not None or known.received == self.round_num:
                # The client follows the server's round numbers, or has counted all rounds: one more model ends it.
                self.send_message_sync_model_to_client(client, self._model, silo)
            else:
                self.send_message_finish(client, silo)
        useful = getattr(self.com_manager, "farewell_seconds", self.settings.end_timeout)
        self._start_timer(min(self.settings.end_timeout, self.settings.client_timeout or useful, useful))
        self._carry_out(self._roll.settle())


def _expect(manager: Any, aggregator: HookedAggregator, clients: list[int]) -> None:
    """Tell a transport with the method `expect` the model's size in bytes and the clients' ids."""
    if hasattr(manager, "expect"):
        model = aggregator.get_global_model_params().values()
        manager.expect(sum(t.numel() * t.element_size() for t in model if isinstance(t, Tensor)), clients)
