"""One round on the server, the same for the simulators and for cross-silo: attack, defense, aggregation, report."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from torch import Tensor, nn

from fedml_gradcam_ae.contract.interfaces import Attack, Defense
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks.attacker import PluginAttack
from fedml_gradcam_ae.hooks.defender import PluginDefense
from fedml_gradcam_ae.hooks.reporting import listeners, report_round
from fedml_gradcam_ae.hooks.surroundings import Federation, Uploads, aggregating, identity, own_dicts, pairs
from fedml_gradcam_ae.hooks.trigger import publish_trigger
from fedml_gradcam_ae.hooks.upload_settings import read_upload_settings
from fedml_gradcam_ae.recording import events
from fedml_gradcam_ae.recording.watching import any_detector_watches, watch


class Aggregated(NamedTuple):
    """Result of one aggregated round.

    Attributes:
        model: the state dict of the new global model.
        report: the report of the round, already published to the listeners.
        admitted: the round with the uploads that passed the gate; None if no upload was given to the gate.
    """

    model: OrderedDict[str, Tensor]
    report: events.RoundReport
    admitted: Round | None


def defense_or_attack_active() -> bool:
    """Return whether an attack, a defense or a watching detector is on; if not, simulators use FedML's own average."""
    acts = FedMLAttacker.get_instance().is_enabled or FedMLDefender.get_instance().is_enabled
    return bool(acts or any_detector_watches())


def prepare(network: nn.Module | None, test_data: Iterable[Any]) -> None:
    """Check before any training that the attack and the defense can work with the network and the test data.

    Calls the own `prepare` of the plug-in's attack and defense, if they are on.

    Args:
        network: a private copy of the architecture, in eval mode; None skips all checks.
        test_data: the server's batches (images, labels).

    Raises:
        SettingsError: if an attack, a defense or a watching detector is on and the network has complex tensors, or if
            the attack or the defense cannot work with the network or the data.
    """
    if defense_or_attack_active() and network is not None:
        odd = [
            name for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor) and tensor.is_complex()
        ]
        if odd:
            raise SettingsError(
                f"{odd[0]} of the network is complex: defenses and attacks compare real numbers. "
                "Hold its real and imaginary part in a tensor each, or turn enable_defense and enable_attack off."
            )
    for own in (attack(), defense()):
        if own is not None and network is not None:
            try:
                own.prepare(network, test_data)
            except SettingsError:
                raise
            except ValueError as error:
                raise SettingsError(str(error)) from None


def run_listeners(args: Any) -> AbstractContextManager[None]:
    """Return a context manager that keeps the listeners of a run active; see `reporting.listeners`.

    Args:
        args: FedML's args.
    """
    own = defense()
    return listeners(args, None if own is None else own.settings)


def aggregate(
    aggregator: Any,
    uploads: Uploads,
    *,
    number: int,
    client_ids: Sequence[ClientId],
    clients: Sequence[ClientId],
    network: nn.Module,
    test_data: Iterable[Any],
    local_data: Mapping[ClientId, Iterable[Any]],
    rejected: Mapping[ClientId, str] | None = None,
    trained: Sequence[ClientId] | None = None,
    from_strangers: bool = False,
) -> Aggregated:
    """Aggregate one round and return the new global model.

    Runs the three steps of FedML's ServerAggregator, in which attacks and defenses act: `on_before_aggregation`,
    `aggregate` and `on_after_aggregation`. Then publishes the report of the round.

    Args:
        aggregator: FedML's ServerAggregator. It holds the old global model before the call and the new one after it.
        uploads: pairs (sample count, state dict) in the order of the clients. Both may be arbitrary objects.
        number: the round, counted from 1.
        client_ids: the clients that uploaded, in the order of `uploads`.
        clients: all clients that may take part.
        network: a private copy of the architecture, in eval mode.
        test_data: the server's batches (images, labels).
        local_data: training data by client id, for attacks.
        rejected: reasons by client id, for clients whose upload is known to be unusable. These uploads are left out.
        trained: the clients that trained, if the uploads of some were lost; None: those of `client_ids`.
        from_strangers: whether the uploads come from other processes. If so, they pass the gate before a simulated
            attack as well; if not, only after it.
    """
    attacker = FedMLAttacker.get_instance()
    truth_is_known = not attacker.is_enabled or isinstance(attacker.attacker, PluginAttack)
    ids = [identity(client) for client in client_ids]
    federation = Federation(
        number=number,
        client_ids=ids,
        samples=dict(zip(ids, (samples for samples, _ in uploads), strict=True)),
        clients=clients,
        network=network,
        test_data=test_data,
        local_data=local_data,
        trained=None if trained is None else [identity(client) for client in trained],
        attackers=[] if truth_is_known else None,
        settings=read_upload_settings(getattr(aggregator, "args", None)),
        attacked=bool(attacker.is_enabled),
        rejected=rejected or {},
    )
    usable = [upload for client, upload in zip(ids, uploads, strict=True) if client not in federation.rejected]
    model: Mapping[str, Tensor] = aggregator.get_model_params()
    if from_strangers and usable:
        admitted = federation.gate(usable, model)
        federation.rejected, usable = admitted.rejected, pairs(admitted)
    with aggregating(federation):
        kept = aggregator.on_before_aggregation(usable)[0] if usable else []
        if kept and federation.judged is None:
            kept = pairs(federation.gate(kept, model))
        if any_detector_watches() and federation.admitted is not None:
            federation.watched = watch(federation.admitted)
        report = report_round(federation)
        if kept:
            model = aggregator.aggregate(own_dicts(kept))
        if not report.global_model_stays:
            model = aggregator.on_after_aggregation(model)
    aggregator.set_model_params(model)
    events.publish(report)
    publish_trigger(attack(), federation)
    return Aggregated(OrderedDict(model), report, federation.admitted)


def start_for(client: Any, global_model: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the state dict from which a client starts its training.

    This is the global model, unless the defense that is on keeps several models.

    Args:
        client: the client's id.
        global_model: the state dict of the global model.
    """
    own = defense()
    return global_model if own is None else own.start_for(identity(client), global_model)


def predictor(network: nn.Module) -> nn.Module:
    """Return the module to test: the network, or the vote of several models if the defense that is on keeps them.

    Args:
        network: the architecture with the weights of the global model.
    """
    own = defense()
    return network if own is None else own.predictor(network)


def defense() -> Defense | None:
    """Return the plug-in's defense that is on; None without a defense and with one of FedML's own."""
    defender = FedMLDefender.get_instance()
    own = defender.defender if defender.is_enabled else None
    return own.defense if isinstance(own, PluginDefense) else None


def attack() -> Attack | None:
    """Return the plug-in's attack that is on; None without an attack and with one of FedML's own."""
    attacker = FedMLAttacker.get_instance()
    own = attacker.attacker if attacker.is_enabled else None
    return own.attack if isinstance(own, PluginAttack) else None
