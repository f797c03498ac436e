import subprocess
import sys
import time

import pytest

from fedml_gradcam_ae import Attack, Defense, Verdict, register_attack, register_defense
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import overrides, timed_judge


def test_the_packages_own_types_are_known_by_name() -> None:
    assert "gradcam_ae" in registry.defenses()
    assert {"constrained_perturbation", "uniform_noise"} <= set(registry.attacks())


def test_settings_are_no_dictionary() -> None:
    krum = registry.defenses()["krum"]
    with pytest.raises(
        TypeError, match=r"Krum takes .* Krum\.Settings, found dict: use Krum\(Krum\.Settings\(malicious=1\)\)\."
    ):
        krum({"malicious": 1})
    with pytest.raises(TypeError, match=r"found SignFlip\.Settings: use Krum\(Krum\.Settings\(\.\.\.\)\)\."):
        krum(registry.attacks()["sign_flip"].Settings())
    for rule in [*registry.defenses().values(), *registry.attacks().values()]:
        with pytest.raises(TypeError, match=rf"use {rule.__name__}\({rule.__name__}\.Settings\(\)\)"):
            rule({})


def test_one_decorator_line_registers_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_defenses", {})

    @register_defense("mine")
    class Mine(Defense):
        def judge(self, round): ...

    assert registry.defenses()["mine"] is Mine


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match=r"'gradcam_ae' is taken by .*gradcam_ae\.defense\.GradCAMAE"):

        @register_defense("gradcam_ae")
        class Other(Defense):
            def judge(self, round): ...


def test_a_name_of_the_packages_is_taken_even_before_it_is_imported() -> None:
    code = (
        "from fedml_gradcam_ae import Defense, register_defense\n"
        "class Mine(Defense):\n"
        "    def judge(self, round): ...\n"
        "try:\n"
        "    register_defense('krum')(Mine)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "The name 'krum' is taken by fedml_gradcam_ae.defenses.krum.Krum: choose another one.\n"


def test_a_decorator_without_a_name_is_refused() -> None:
    with pytest.raises(TypeError, match=r"@register_defense\('name'\)"):

        @register_defense
        class Nameless(Defense): ...


def test_settings_of_another_kind_are_refused() -> None:
    class Loose(Defense):
        class Settings:
            alpha = 1

        def judge(self, round): ...

    with pytest.raises(ValueError, match=r"its Settings must be a subclass of .*\.DefenseSettings\."):
        register_defense("loose")(Loose)


@pytest.mark.parametrize("cls", [*registry.defenses().values(), *registry.attacks().values()], ids=lambda c: c.__name__)
def test_every_rule_has_its_defaults_without_settings(cls) -> None:
    fields = cls.Settings.model_fields.values()
    if any(field.is_required() or field.json_schema_extra for field in fields):
        pytest.skip("some of its settings have no default, or are the clients' own")
    assert cls().settings == cls.Settings()


@pytest.mark.parametrize("answer", [None, [0.5, 0.5]])
def test_a_defense_that_answers_with_no_verdict_is_named(make_round, answer) -> None:
    class Forgetful(Defense):
        def judge(self, round):
            return answer

    with pytest.raises(TypeError, match=r"Forgetful\.judge must return a Verdict, found (NoneType|list)\."):
        timed_judge(Forgetful(), make_round(2))


def test_a_class_without_the_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Idle cannot be registered as 'idle': it has no method poison\(self, "):

        @register_attack("idle")
        class Idle(Attack): ...


def test_a_class_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it must be a subclass of fedml_gradcam_ae\.Defense\.$"):

        @register_defense("loose")
        class Loose:
            def judge(self, round): ...


@pytest.mark.parametrize(
    ("name", "method", "words"),
    [
        (
            "restor",
            lambda self, state: None,
            r"restor\(self, state\) is no .* Did you mean restore\(self, state\)",
        ),
        ("realease", lambda self, client: None, r"Did you mean release\(self, client\)"),
        ("start_fro", lambda self, a, b: None, r"Did you mean start_for\(self, client, global_model\)"),
        ("prepared", lambda self, a, b: None, r"Did you mean prepare\(self, network, test_data\)"),
        ("restore", lambda self: None, r"its method restore\(self\) must be restore\(self, state\)"),
        (
            "judge",
            lambda self, round, more: None,
            r"judge\(self, round, more\) must be judge\(self, round\)",
        ),
        ("state", lambda self, client: None, r"its method state\(self, client\) must be state\(self\)"),
    ],
)
def test_a_misspelled_or_misshapen_optional_method_is_refused(name, method, words) -> None:
    method.__name__ = name
    cls = type("Mistaken", (Defense,), {"judge": lambda self, round: None, name: method})
    with pytest.raises(ValueError, match=words):
        register_defense("mistaken")(cls)
    assert "mistaken" not in registry.defenses()


def test_methods_of_its_own_and_more_parameters_with_defaults_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_defenses", {})

    @register_defense("mine")
    class Mine(Defense):
        def judge(self, round, verbose=False): ...

        def score(self, round): ...

        def _restor(self): ...

    assert registry.defenses()["mine"] is Mine


def test_what_is_optional_does_nothing_unless_it_is_overridden() -> None:
    class Mine(Defense):
        def judge(self, round): ...

        def restore(self, state): ...

    mine, network, model = Mine(), object(), {}
    mine.prepare(network, [])
    mine.release(1)
    assert mine.state() == {}
    assert mine.start_for(1, model) is model
    assert mine.predictor(network) is network
    assert [overrides(Mine, name) for name in ("restore", "state", "poison_data")] == [True, False, False]
    assert not overrides(None, "state")
    assert not overrides(Idle, "poison_data")


class Idle(Attack):
    def poison(self, round, attackers): ...


def test_a_verdict_of_another_length_than_the_round_is_refused(make_round) -> None:
    class Short(Defense):
        def judge(self, round):
            return Verdict(weights=[0.5, 0.5])

    with pytest.raises(ValueError, match=r"Short\.judge answered for 2 clients, where the round has 3: 100, 101, 102"):
        timed_judge(Short(), make_round(3))


def test_a_verdict_says_how_long_it_took_beside_its_own_stages(make_round) -> None:
    class Slow(Defense):
        def judge(self, round):
            time.sleep(0.01)
            return Verdict(model=round.global_model, seconds={"stage": 1.0})

    found = timed_judge(Slow(), make_round(3)).seconds
    assert found["stage"] == 1.0
    assert found["total"] >= 0.01
