"""Write the table of docs/fedml.md from the patches: python tools/docs/make_fedml.py.

Each patch of FedML stores what it mends; a test keeps the page current.
"""

from __future__ import annotations

import re
from pathlib import Path

import fedml_gradcam_ae
from fedml_gradcam_ae import hooks

PAGE = Path(__file__).parents[2] / "docs" / "fedml.md"
BLOCK = re.compile(
    r"(<!-- begin: tools/docs/make_fedml.py -->\n).*?(<!-- end: tools/docs/make_fedml.py -->)", re.DOTALL
)


def table() -> str:
    """Return a row for each attribute that `register()` replaces, and for those replaced while a run lasts."""
    fedml_gradcam_ae.register()
    from fedml_gradcam_ae.hooks.simulation.mpi_routes import REPLACED

    rows = [(f"`{patch.path}`", patch.mends) for patch in hooks.replaced()]
    rows += [(f"`{path}`, during a run", mends) for path, mends in REPLACED.items()]
    fedml_gradcam_ae.unregister()
    return "\n".join(["| replaced | what it mends |", "| --- | --- |", *(f"| {p} | {m} |" for p, m in rows)])


def page(text: str) -> str:
    """Return the page with the table as it should be."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table()}\n\n{found[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
