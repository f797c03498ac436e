"""What is known to be wrong with FedML's own types, for whoever compares with them."""

from __future__ import annotations

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.hooks import builtin


def known_defect(type_: str) -> str | None:
    """Of a `defense_type` or `attack_type`; None for the plug-in's own, also where FedML has one of the same name."""
    own = type_.removeprefix(builtin.PREFIX)
    if type_ == own and own in registry.defenses() | registry.attacks():
        return None
    return builtin.DEFECTS.get(own)
