"""What a run says at its start."""

import logging
import re
from contextlib import contextmanager

import fedml
import pytest

from fedml_gradcam_ae.hooks import log_lines
from fedml_gradcam_ae.hooks.announcement import announce, warnings_of, what_runs
from fedml_gradcam_ae.hooks.fedml_keys import keys_of_fedml
from tiny import fedml_args

ATTACK = {"enable_attack": True, "attack_type": "byzantine", "byzantine_client_num": 1, "attack_mode": "zero"}


def of(clients=6, **changes):
    return fedml_args(client_num_per_round=clients, client_num_in_total=clients, **changes)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["no defense and no attack: FedML's own average of the uploads"]),
        ({"enable_defense": True, "defense_type": "median"}, ["defense: the plug-in's median"]),
        (ATTACK, ["attack: FedML's byzantine"]),
        (
            {"enable_defense": True, "defense_type": "rfa", "enable_attack": True, "attack_type": "sign_flip"},
            ["defense: FedML's rfa", "attack: the plug-in's sign_flip"],
        ),
        (
            {"enable_defense": True, "defense_type": "foolsgold"},
            [
                "defense_type: foolsgold runs the plug-in's foolsgold. FedML's own, fedml:foolsgold, sums by place in "
                "the round, not by client, and compares models."
            ],
        ),
    ],
)
def test_each_side_has_its_line(changes, lines) -> None:
    assert what_runs(of(**changes)) == lines


def test_fedml_init_says_it_once_and_on_the_server_alone(plugin, caplog) -> None:
    caplog.set_level(logging.INFO, logger="fedml_gradcam_ae")
    fedml.init(of(enable_defense=True, defense_type="median"))
    assert caplog.messages == ["defense: the plug-in's median"]
    caplog.clear()
    announce(of(rank=2, backend="MPI"))
    assert caplog.messages == []
    announce(of(rank=2, training_type="cross_silo"))
    assert caplog.messages == ["client 2: attacks and defenses act on the server"]


def few(clients, name, **params):
    args = of(clients, enable_defense=True, defense_type=name, defense_params=params)
    return list(warnings_of(args))


def test_a_rule_that_cannot_protect_so_few_says_so_and_names_those_that_can() -> None:
    (line,) = few(4, "multi_krum")
    assert line.startswith(
        "multi_krum withstands no malicious client with arbitrary uploads among 4 a round; with these settings it "
        "takes 5. These do, with their defaults: "
    )
    assert {"krum", "median", "gradcam_ae", "fltrust"} <= set(line.split("defaults: ")[1].split(". ")[0].split(", "))
    assert "multi_krum" not in line.split("defaults: ")[1]
    assert few(5, "multi_krum") == []
    assert few(4, "trimmed_mean", beta=0.25) == []


@pytest.mark.parametrize(
    ("clients", "name", "params", "message"),
    [
        (3, "gradcam_ae", {}, "it takes 4"),
        (2, "gradcam_ae", {"profile": "paper"}, "it takes 3"),
        (2, "median", {}, r"it takes 3\. These do, with their defaults: fltrust\."),
        (4, "multi_krum", {"pre": ["nnm"]}, "it takes 5"),
        (4, "median", {"pre": ["bucketing"]}, "it takes 5"),
        (10, "foolsgold", {}, "nor does it among more"),
    ],
)
def test_it_says_how_many_it_takes(clients, name, params, message) -> None:
    (line,) = few(clients, name, **params)
    assert re.search(message, line), line


def test_other_runs_are_told_nothing() -> None:
    assert few(4, "median", pre=["norm_clipping"]) == []
    assert list(warnings_of(of(2))) == []
    assert list(warnings_of(of(2, enable_defense=True, defense_type="rfa"))) == []  # FedML's own


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (
            "defense_args: {add_defense: N}",
            {},
            "defense_args.add_defense has no effect: FedML 0.9.6 reads enable_defense, which is false here.",
        ),
        (
            "attack_args: {add_attack: N, enable_attack: true}",
            ATTACK,
            "attack_args.add_attack has no effect: FedML 0.9.6 reads enable_attack, which is true here.",
        ),
        (
            "defense_args: {krum_param_m: 2, defense_params: {}}",
            {"enable_defense": True, "defense_type": "krum", "krum_param_m": 2, "defense_params": {}},
            "defense_args.krum_param_m has no effect: defense_params stands beside it.",
        ),
        (
            "defense_args: {krum_param_m: 2}",
            {"enable_defense": True, "defense_type": "multi_krum", "krum_param_m": 2},
            "defense_args.krum_param_m has no effect: it is a key of FedML's own types. Those of multi_krum stand in "
            "defense_params (docs/settings.md).",
        ),
    ],
)
def test_a_key_without_effect_is_named(tmp_path, text, changes, message) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert list(warnings_of(of(yaml_config_file=str(path), **changes))) == [message]


def test_fedmls_own_keys_are_those_that_its_source_reads() -> None:
    assert {"federated_optimizer", "epochs", "krum_param_m", "attack_prob", "using_gpu"} <= keys_of_fedml()
    assert not {"malicious", "probe_images", "byzantine_client_nmu", "add_defense"} & keys_of_fedml()


@contextmanager
def new_root():
    """The root logger as in a new process; pytest gives it handlers after the fixtures."""
    logger = logging.getLogger()
    handlers, filters, level = logger.handlers, logger.filters, logger.level
    logger.handlers, logger.filters = [], []
    logger.setLevel(logging.WARNING)
    try:
        yield logger
    finally:
        log_lines.undo()
        logger.handlers, logger.filters = handlers, filters
        logger.setLevel(level)


def say() -> None:
    """What the program logs, a library, and FedML."""
    logging.info("mine")
    logging.getLogger("library").info("a library's")
    code = compile("import logging; logging.info('FedML`s'); logging.warning('serious')", fedml.__file__, "exec")
    exec(code)


@pytest.mark.parametrize("first", [False, True])
def test_lines_of_the_program_appear_and_fedmls_do_not(capsys, first) -> None:
    with new_root() as root:
        if first:  # which gives the root logger a handler and leaves it at WARNING
            logging.info("too early")
        for _ in range(2):
            log_lines.show_program_lines()
        say()
        lines = [line.rpartition(":")[2] for line in capsys.readouterr().err.splitlines()]
        assert lines == ["mine", "serious"]
        log_lines.undo()
        assert (root.level, root.filters, len(root.handlers)) == (logging.WARNING, [], int(first))


def test_fedmls_lines_come_back(capsys, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("fedml"), "level", logging.INFO)
    with new_root():
        log_lines.show_program_lines()
        say()
    assert capsys.readouterr().err.splitlines() == ["mine", "FedML`s", "serious"]


def test_loggers_with_a_level_of_their_own_are_heard_as_before(capsys, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("library"), "level", logging.INFO)
    with new_root():
        logging.basicConfig(format="%(name)s %(message)s")
        log_lines.show_program_lines()
        say()
    assert capsys.readouterr().err.splitlines() == ["root mine", "library a library's", "root serious"]
