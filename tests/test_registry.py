import pytest

from fedml_gradcam_ae import register_attack, register_defense
from fedml_gradcam_ae.contract import registry


def test_the_packages_own_types_are_known_by_name() -> None:
    assert "gradcam_ae" in registry.defenses()
    assert {"constrained_perturbation", "uniform_noise"} <= set(registry.attacks())


def test_one_decorator_line_registers_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_defenses", {})

    @register_defense("mine")
    class Mine:
        def judge(self, round): ...

    assert registry.defenses()["mine"] is Mine


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match=r"'gradcam_ae' is taken by .*gradcam_ae\.defense\.GradCAMAE"):

        @register_defense("gradcam_ae")
        class Other:
            def judge(self, round): ...


def test_a_class_without_the_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no method poison\(\)"):

        @register_attack("idle")
        class Idle: ...
