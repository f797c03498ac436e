"""GradCAM-AE and other defenses and attacks for FedML, turned on by two lines of YAML.

This module is cheap to import: it loads neither fedml nor torch until something needs them.
"""

from fedml_gradcam_ae.contract.interfaces import Attack, Defense
from fedml_gradcam_ae.contract.registry import register_attack, register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict

__version__ = "0.1.0"
__all__ = ["Attack", "Defense", "Round", "Verdict", "register", "register_attack", "register_defense", "unregister"]


def register() -> None:
    """Make FedML honor `defense_type` and `attack_type`, ours and its own.

    Call it once, before `fedml.init()` and `FedMLRunner(...)`; before or after `import fedml` is all
    the same, and a second call changes nothing. What it patches is listed in docs/fedml.md.
    """
    from fedml_gradcam_ae import hooks

    hooks.install()


def unregister() -> None:
    """Give FedML back every attribute that `register()` replaced."""
    from fedml_gradcam_ae import hooks

    hooks.uninstall()
