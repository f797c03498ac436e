"""Saving of a server's state after every round, and its restoration when the server resumes."""

from __future__ import annotations

import json
import logging
from typing import Any

from fedml_gradcam_ae.contract.interfaces import Defense, overrides
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks import aggregation, configuration
from fedml_gradcam_ae.hooks.cross_silo.checkpoint import Checkpoint, Owner, finite
from fedml_gradcam_ae.hooks.cross_silo.settings import ServerSettings
from fedml_gradcam_ae.hooks.cross_silo.structure import take_apart

log = logging.getLogger("fedml_gradcam_ae")

OF_NO_CONSEQUENCE = {"record_dir"}  # Settings that do not change a defense's state and may differ on resuming.


class Persistence:
    """Saver and loader of a server's state; it does nothing unless the settings name a folder.

    Args:
        args: FedML's args.
        settings: the server's settings.
    """

    def __init__(self, args: Any, settings: ServerSettings) -> None:
        self.settings = settings
        self._checkpoint = None
        if settings.checkpoint_dir is not None:
            self._checkpoint = Checkpoint(settings.checkpoint_dir, Owner(int(args.comm_round), _defense(args)))

    def restore(self, aggregator: Any) -> int:
        """Restore the aggregator and the defense from the checkpoint, if the server is to resume.

        Clients that the setting `release` names are then released by the defense.

        Args:
            aggregator: the server's aggregator.

        Returns:
            The number of finished rounds; 0 if there is nothing to resume from.

        Raises:
            SettingsError: if the checkpoint cannot be used.
        """
        if self._checkpoint is None or not self.settings.resume:
            return 0
        saved = self._checkpoint.load(aggregator.get_global_model_params())
        if saved is None:
            log.info("nothing to resume from in %s: starting with round 1", self.settings.checkpoint_dir)
            return 0
        defense = aggregation.defense()
        if defense is not None:
            try:
                defense.restore(saved.defense)
            except Exception as error:  # each defense checks its state itself, and may raise any error
                raise self._checkpoint.unusable(error) from error
        aggregator.set_global_model_params(saved.model)
        for client in self.settings.release:
            _release(defense, client)
        log.info("going on after round %d, from %s", saved.rounds_done, self.settings.checkpoint_dir)
        return saved.rounds_done

    def try_out(self, aggregator: Any) -> None:
        """Check that the state can be saved.

        Raises:
            SettingsError: if it cannot.
        """
        if self._checkpoint is not None:
            self._checkpoint.try_out(aggregator.get_global_model_params(), _state())

    def save(self, rounds_done: int, aggregator: Any) -> None:
        """Save the state after a round.

        If the file cannot be written, a warning is logged and the round counts all the same. A global model with NaN
        or infinity is not saved.

        Args:
            rounds_done: the number of finished rounds.
            aggregator: the server's aggregator.
        """
        if self._checkpoint is None:
            return
        model = aggregator.get_global_model_params()
        if not finite(model):
            log.warning("round %d: the global model holds NaN or infinity, and is not saved", rounds_done)
            return
        try:
            self._checkpoint.save(rounds_done, model, _state())
        except OSError as error:
            log.warning("round %d: the state could not be saved: %s", rounds_done, error)


def _state() -> dict[str, Any]:
    defense = aggregation.defense()
    return {} if defense is None else defense.state()


def _defense(args: Any) -> dict[str, Any]:
    """Return the type and the settings of the defense that is on; empty without a defense."""
    requested = configuration.requested(configuration.DEFENSE, args)
    if requested is None:
        return {}
    settings = json.loads(requested.settings.model_dump_json(exclude=OF_NO_CONSEQUENCE))
    # Not composed is what a checkpoint says that knows nothing of compositions.
    settings = {key: value for key, value in settings.items() if key not in ("pre", "then") or value not in ([], None)}
    return {"type": requested.name, "settings": settings}


def _release(defense: Defense | None, client: ClientId) -> None:
    if defense is None or not overrides(type(defense), "release"):
        log.warning("release: this defense removes no client for good, so client %s was not removed", client)
        return
    before = take_apart(defense.state())[0]
    defense.release(client)
    if take_apart(defense.state())[0] == before:
        log.warning("release: client %s was neither removed nor flagged, so nothing changes", client)
    else:
        log.info("client %s is released: it is judged like any other again", client)
