"""GradCAM-AE and other defenses and attacks for FedML, turned on by two lines of YAML.

Importing this module is cheap: neither fedml nor torch is loaded before it is needed.
"""

from fedml_gradcam_ae.contract.interfaces import Attack, Defense
from fedml_gradcam_ae.contract.registry import register_attack, register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict

__version__ = "0.1.0"
__all__ = ["Attack", "Defense", "Round", "Verdict", "register", "register_attack", "register_defense", "unregister"]


def register() -> None:
    """Make FedML apply `defense_type` and `attack_type`, both this package's types and FedML's own.

    Call it once, before `fedml.init()` and `FedMLRunner(...)`. It may come before or after `import fedml`, and a second
    call changes nothing. docs/fedml.md lists the parts of FedML that it patches.
    """
    from fedml_gradcam_ae import hooks

    hooks.install()


def unregister() -> None:
    """Restore every attribute of FedML that `register()` replaced."""
    from fedml_gradcam_ae import hooks

    hooks.uninstall()
