"""All code that touches FedML: installs the patches and removes them again.

Each module patches one part of FedML. Each patch names in one line the defect that it mends. docs/fedml.md lists all
patches.
"""

from __future__ import annotations

import warnings

from fedml_gradcam_ae.hooks.patching import Patches, Replacement

_patches: Patches | None = None


def install() -> None:
    """Apply all patches to FedML; has no effect if they are applied already."""
    global _patches
    if _patches is not None:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        import fedml  # noqa: F401  (takes seconds, so the plug-in imports FedML here and not at its own import)
    from fedml_gradcam_ae.hooks import attacker, averaging, configuration, defender, metrics, startup
    from fedml_gradcam_ae.hooks.cross_silo import client, server, transport
    from fedml_gradcam_ae.hooks.simulation import mpi, sp

    patches = Patches()
    for part in (configuration, startup, metrics, attacker, defender, averaging, sp, mpi, server, client, transport):
        part.patch(patches)
    _patches = patches


def replaced() -> list[Replacement]:
    """Return what is replaced at the moment, in order."""
    return [] if _patches is None else list(_patches.replaced)


def uninstall() -> None:
    """Restore FedML's own attributes; has no effect without an `install` before."""
    global _patches
    if _patches is not None:
        from fedml_gradcam_ae.hooks import log_lines

        log_lines.undo()
        _patches.undo()
        _patches = None
