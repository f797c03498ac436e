from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender

import fedml_gradcam_ae
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.recording import events


@pytest.fixture
def plugin() -> Iterator[None]:
    """FedML with the plug-in on, and as it was afterward."""
    forget()
    fedml_gradcam_ae.register()
    yield
    fedml_gradcam_ae.unregister()
    forget()


def forget() -> None:
    """FedML keeps the defense and the attack of its last run, also of one that stopped with an error."""
    FedMLDefender.get_instance().is_enabled = FedMLAttacker.get_instance().is_enabled = False


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Registering types for one test: they are gone after it."""
    defenses, attacks = registry.defenses(), registry.attacks()
    monkeypatch.setattr(registry, "_defenses", defenses)
    monkeypatch.setattr(registry, "_attacks", attacks)
    return {"defenses": defenses, "attacks": attacks}


@pytest.fixture
def heard() -> Iterator[list[events.Event]]:
    """Every event of the test, in order."""
    found: list[events.Event] = []
    with events.listening(found.append):
        yield found
