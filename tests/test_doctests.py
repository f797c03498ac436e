"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch

from fedml_gradcam_ae.contract import registry

ROOT = Path(__file__).parents[1]
NEEDS = {"grpc": "fedml_gradcam_ae.hooks.cross_silo.transport", "cryptography": "fedml_gradcam_ae.hooks.cross_silo"}


def modules_with_examples():
    for package in ("fedml_gradcam_ae", "benchmark"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if ">>>" in path.read_text(encoding="utf-8"):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name, monkeypatch) -> None:
    for needed, package in NEEDS.items():
        if name.startswith(package):
            pytest.importorskip(needed, reason=f"{needed} is not installed")
    monkeypatch.setattr(registry, "_defenses", registry.defenses())  # what an example registers is gone after it
    monkeypatch.setattr(registry, "_attacks", registry.attacks())
    torch.manual_seed(0)
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert attempted > 0
    assert failed == 0, "see the output above"
