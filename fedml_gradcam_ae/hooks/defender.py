"""Patches of FedMLDefender: run the plug-in's defenses and keep unusable uploads from every defense."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import replace
from time import perf_counter
from typing import Any

from fedml.core.security.defense.defense_base import BaseDefenseMethod
from fedml.core.security.fedml_defender import FedMLDefender

from fedml_gradcam_ae.contract.interfaces import Defense, timed_judge
from fedml_gradcam_ae.contract.round import Round, TooFewUploads, Verdict, sample_weights
from fedml_gradcam_ae.contract.tied import with_one_value
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.hooks.attacker import with_type
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.surroundings import Federation, Uploads, current, pairs
from fedml_gradcam_ae.hooks.too_few import answer_too_few

log = logging.getLogger("fedml_gradcam_ae")


class PluginDefense(BaseDefenseMethod):  # type: ignore[misc]  # fedml has no types
    """Adapter that gives one of the plug-in's defenses the interface of FedML's defenses.

    The patch of `FedMLDefender.defend_before_aggregation` below calls `judge`.

    Args:
        defense: the defense.
    """

    def __init__(self, defense: Defense) -> None:
        self.defense = defense
        self.excluded: list[int] = []

    def judge(self, round: Round) -> Verdict:
        """Return the defense's verdict on a round.

        Args:
            round: the round with the uploads that passed the gate; at least one.

        Raises:
            TooFewUploads: if the defense's guarantee needs more uploads.
        """
        verdict = timed_judge(self.defense, round)
        if verdict.model is not None and round.tied:
            verdict = replace(verdict, model=with_one_value(verdict.model, round.tied))
        self.excluded = [i for i, out in enumerate(verdict.excluded or []) if out]
        return verdict

    def defend_after_aggregation(self, global_model: OrderedDict[str, Any]) -> OrderedDict[str, Any]:
        """Return the aggregate unchanged; FedML calls this method for a type that has the name of one of its own.

        Args:
            global_model: the state dict after the aggregation.
        """
        return global_model

    def get_malicious_client_idxs(self) -> list[int]:
        """Return the positions of the uploads that were excluded in the last round; FedML calls this method."""
        return self.excluded


def patch(patches: Patches) -> None:
    """Make FedMLDefender accept the plug-in's defense types, and put the gate in front of all defenses."""
    stock_init = FedMLDefender.init
    stock_is_before = FedMLDefender.is_defense_before_aggregation
    stock_defend = FedMLDefender.defend_before_aggregation

    def init(self: Any, args: Any) -> None:
        requested = configuration.requested(configuration.DEFENSE, args)
        if requested is None:
            stock_init(self, args)
        elif requested.cls is None:
            stock_init(self, with_type(args, "defense_type", requested.name))
        else:
            self.args = args
            self.is_enabled = True
            self.defense_type = requested.name
            self.defender = PluginDefense(requested.build())

    patches.replace(FedMLDefender, "init", init, mends="a closed list of types, whose keys are not checked")

    def is_defense_before_aggregation(self: Any) -> bool:
        if isinstance(self.defender, PluginDefense):
            return bool(self.is_defense_enabled())
        return bool(stock_is_before(self))

    patches.replace(
        FedMLDefender,
        "is_defense_before_aggregation",
        is_defense_before_aggregation,
        mends="a hard-coded list of types that act before the aggregation",
    )

    def defend_before_aggregation(
        self: Any, raw_client_grad_list: Uploads, extra_auxiliary_info: Any = None
    ) -> Uploads:
        federation = current()
        if federation is None:
            result: Uploads = stock_defend(self, raw_client_grad_list, extra_auxiliary_info)
            return result
        round = federation.gate(raw_client_grad_list, extra_auxiliary_info)
        federation.judged = round
        if isinstance(self.defender, PluginDefense):
            verdict = (
                _judge(self.defender, round, federation, self.defense_type) if round.uploads else _no_client_left(0)
            )
            federation.verdict = verdict
            return hand_back(verdict, round)
        return _run_stock(lambda uploads: stock_defend(self, uploads, extra_auxiliary_info), round, federation)

    patches.replace(
        FedMLDefender,
        "defend_before_aggregation",
        defend_before_aggregation,
        mends="a defense gets neither the clients' ids nor the network, and one broken upload stops the server",
    )


def _judge(defender: PluginDefense, round: Round, federation: Federation, name: str) -> Verdict:
    """Return the defense's verdict, or that of `on_too_few` if its guarantee needs more uploads."""
    try:
        return defender.judge(round)
    except TooFewUploads as error:
        verdict, note = answer_too_few(error, federation.settings.on_too_few, round, name)
        federation.notes.append(note)
        return verdict


def hand_back(verdict: Verdict, round: Round) -> Uploads:
    """Return the list that FedML averages after a verdict.

    Args:
        verdict: the verdict on the round.
        round: the judged round.

    Returns:
        Pairs (weight, state dict): the kept uploads, bounded as `Round.bounded` has them; or the verdict's own model
        with weight 1; or the global model with weight 1 if no upload is kept.
    """
    if verdict.model is not None:
        return [(1.0, OrderedDict(verdict.model))]
    assert verdict.weights is not None  # Verdict has weights or a model
    uploads = round.bounded.uploads
    kept = [(weight, upload) for weight, upload in zip(verdict.weights, uploads, strict=True) if weight > 0]
    return kept or [(1.0, OrderedDict(round.global_model))]


def _run_stock(defend: Any, round: Round, federation: Federation) -> Uploads:
    """Run one of FedML's own defenses on the usable uploads and return what FedML averages.

    FedML's rules may consume the list they are given, so they get a copy.
    """
    uploads = pairs(round)
    start = perf_counter()
    try:
        kept: Uploads = defend(list(uploads)) if uploads else []
    except Exception as error:
        if not round.rejected:
            raise
        # After unusable uploads were removed, too few may be left for the rule. That must not stop the server.
        log.warning("round %s: FedML's defense failed on the remaining uploads: %s", round.number, error)
        kept = []
    seconds = perf_counter() - start
    if not kept:
        federation.verdict = _no_client_left(len(uploads), seconds)
        return [(1.0, OrderedDict(round.global_model))]
    federation.verdict = _describe(kept, uploads, seconds)
    if federation.verdict is None:
        return kept
    bounded = {id(given): upload for given, upload in zip(round.uploads, round.bounded.uploads, strict=True)}
    return [(weight, bounded[id(upload)]) for weight, upload in kept]


def _no_client_left(clients: int, seconds: float = 0.0) -> Verdict:
    return Verdict(
        flagged=[True] * clients,
        excluded=[True] * clients,
        weights=[0.0] * clients,
        seconds={"total": seconds},
    )


def _describe(kept: Uploads, uploads: Uploads, seconds: float) -> Verdict | None:
    """Return a verdict that describes the result of one of FedML's own defenses.

    Uploads that the defense did not return, or returned with weight 0, count as excluded.

    Args:
        kept: what the defense returned, as pairs (weight, state dict).
        uploads: what the defense was given.
        seconds: the time that the defense took.

    Returns:
        The verdict; None for a rule that returns new models (clipping, for instance), since new models cannot be
        matched to clients.
    """
    given = {id(upload) for _, upload in uploads}
    weights = {id(upload): float(weight) for weight, upload in kept}
    if not set(weights) <= given:
        return None
    shares = [weights.get(id(upload), 0.0) for _, upload in uploads]
    excluded = [share <= 0 for share in shares]
    return Verdict(
        flagged=excluded, excluded=excluded, weights=sample_weights(shares, excluded), seconds={"total": seconds}
    )
