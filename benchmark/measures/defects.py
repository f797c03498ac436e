"""Known defects of FedML's own attacks and defenses, which the report names beside their results."""

from __future__ import annotations

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.hooks import builtin


def known_defect(type_: str) -> str | None:
    """Return the known defect of one of FedML's own types.

    Args:
        type_: a `defense_type` or `attack_type`, with or without FedML's prefix.

    Returns:
        The defect in words. None if there is none, and for the plug-in's own types, even where FedML has one of the
        same name.
    """
    own = type_.removeprefix(builtin.PREFIX)
    if type_ == own and own in registry.defenses() | registry.attacks():
        return None
    return builtin.DEFECTS.get(own)
