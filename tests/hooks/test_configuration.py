"""Every mistake in the configuration is answered at the start, before any training."""

import inspect
import re
import sys

import fedml
import fedml.constants
import pytest
from fedml.simulation.simulator import SimulatorMPI

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.hooks.simulation import mpi_routes, optimizers
from tiny import fedml_args

ON = {"enable_defense": True}
SILO = {"training_type": "cross_silo", "scenario": "horizontal", "backend": "GRPC"}
ATTACK = {"enable_attack": True}

MISTAKES = {
    "unknown defense": (
        {**ON, "defense_type": "gradcamae"},
        r"Unknown defense_type 'gradcamae'\. Did you mean 'gradcam_ae'\? Valid: 3sigma, .*gradcam_ae.*krum",
    ),
    "unknown attack": ({**ATTACK, "attack_type": "byzantin"}, r"attack_type 'byzantin'\. Did you mean 'byzantine'\?"),
    "no type": (ON, r"defense_type must name a type, found None\. Valid: .*gradcam_ae"),
    "type of a wrong kind": ({**ON, "defense_type": 3}, "defense_type must name a type, found 3"),
    "switch that is text": ({"enable_defense": "false"}, "enable_defense must be true or false, found 'false'"),
    "unknown key": (
        {**ON, "defense_type": "gradcam_ae", "defense_params": {"alhpa": 1}},
        r"Unknown key 'alhpa' in defense_params of gradcam_ae\. Did you mean 'alpha'\?",
    ),
    "alpha of the wrong kind": (
        {**ON, "defense_type": "gradcam_ae", "defense_params": {"profile": "paper", "alpha": "one"}},
        r"defense_params\.alpha: expected a valid number, found 'one' \(text\)",
    ),
    "more clients in a round than there are": (
        {"client_num_per_round": 20},
        "client_num_per_round: 20 of client_num_in_total: 6 clients cannot take part in a round: 6 at most",
    ),
    "more attackers than clients": (
        {**ATTACK, "attack_type": "uniform_noise", "attack_params": {"attackers": 7}},
        "attack_params.attackers: found 7 attackers, but there are 6 clients",
    ),
    "Krum with too many": (
        {**ON, "defense_type": "fedml:krum", "byzantine_client_num": 3},
        r"byzantine_client_num: FedML's krum needs .* found 2 \* 3 \+ 2 > 6 - 1; at most 1 here",
    ),
    "multikrum with a large m": (
        {**ON, "defense_type": "multikrum", "byzantine_client_num": 1, "krum_param_m": 4},
        r"FedML's multikrum needs .* found 2 \* 1 \+ 2 > 6 - 4; at most 0 here",
    ),
    "Krum without its key": (
        {**ON, "defense_type": "fedml:krum"},
        "defense_args.byzantine_client_num is missing: krum needs it",
    ),
    "negative key of FedML's": (
        {**ON, "defense_type": "norm_diff_clipping", "norm_bound": -1},
        "defense_args.norm_bound: expected greater than 0, found -1",
    ),
    "unknown attack mode": (
        {**ATTACK, "attack_type": "byzantine", "byzantine_client_num": 1, "attack_mode": "rnd"},
        "attack_args.attack_mode: expected 'random', 'zero' or 'flip', found 'rnd'",
    ),
    "more of FedML's attackers than clients": (
        {**ATTACK, "attack_type": "byzantine", "byzantine_client_num": 9, "attack_mode": "zero"},
        "found 9 attackers, but 6 clients per round",
    ),
    "params for FedML's type": (
        {**ON, "defense_type": "fedml:krum", "byzantine_client_num": 1, "defense_params": {"f": 1}},
        "defense_params is for the plug-in's own types; krum is FedML's: write its keys straight under defense_args",
    ),
    "a type without the switch": (
        {"defense_type": "krum"},
        "defense_args: defense_type is krum, but without enable_defense FedML runs no defense: write "
        "enable_defense: true, or enable_defense: false",
    ),
    "an attack without the switch": (
        {"attack_type": "byzantine"},
        "attack_type is byzantine, but without enable_attack",
    ),
    "a misspelled switch": (
        {"enable_defence": True, "defense_type": "krum"},
        "defense_args.enable_defence turns no defense on. Did you mean 'enable_defense'?",
    ),
    "another misspelled switch": (
        {"enable_atack": True},
        "enable_atack turns no attack on. Did you mean 'enable_attack'",
    ),
    "a switch of older FedML": (
        {"add_defense": "Y", "defense_type": "norm_diff_clipping", "norm_bound": 5.0},
        "defense_type is norm_diff_clipping, but without enable_defense FedML runs no defense",
    ),
    "a type that FedML's examples have and FedML has not": (
        {**ON, "defense_type": "diff_clipping", "norm_bound": 0.33},
        "Unknown defense_type 'diff_clipping'. Did you mean 'norm_diff_clipping'?",
    ),
    "too many malicious clients for our Krum": (
        {**ON, "defense_type": "krum", "defense_params": {"malicious": 2}},
        r"defense_params of krum: malicious: 2 of 6 clients a round are too many.*at most 1 here",
    ),
    "more groups than clients": (
        {**ON, "defense_type": "flcert", "defense_params": {"groups": 7}},
        "defense_params of flcert: groups: there are only 6 clients a round, found 7 groups",
    ),
    "several models where FedML sends one": (
        {**ON, "defense_type": "flcert", "backend": "MPI"},
        "flcert has clients start from different models, .* backend: sp, found simulation and MPI",
    ),
    "poisoned training in a deployment": (
        {**ATTACK, "attack_type": "label_flip", "training_type": "cross_silo", "backend": "GRPC"},
        "label_flip poisons what clients train on, which a server cannot: .* found cross_silo",
    ),
    "poisoned training by chance": (
        {**ATTACK, "attack_type": "label_flip", "attack_prob": 0.5},
        "attack_prob: label_flip acts while clients train, .* use attack_params active and pause instead",
    ),
    "pauses of no length": (
        {**ATTACK, "attack_type": "label_flip", "attack_params": {"active": 2}},
        "active and pause belong together .*, found active 2 and pause 0",
    ),
    "another optimizer": (
        {**ON, "defense_type": "gradcam_ae", "federated_optimizer": "turbo_aggregate"},
        r"turbo_aggregate would ignore enable_defense here \(secure .*\); honored by: FedAvg, FedOpt",
    ),
    "another optimizer under MPI": (
        {**ATTACK, "attack_type": "byzantine", "byzantine_client_num": 1, "attack_mode": "zero", "backend": "MPI"}
        | {"federated_optimizer": "FedGKT"},
        r"FedGKT would ignore enable_attack here \(clients upload features .*\); honored by: FedAvg, FedProx, FedOpt, ",
    ),
    "secure aggregation": (
        {**ON, "defense_type": "krum", "federated_optimizer": "LSA", **SILO},
        r"LSA would ignore enable_defense here \(secure .*\); honored by: FedAvg\.",
    ),
    "an optimizer that the cross-silo server lacks": (
        {"federated_optimizer": "FedProx", **SILO},
        "Unknown federated_optimizer 'FedProx' of FedML's cross-silo server",
    ),
    "analytics": (
        {**ON, "defense_type": "krum", "federated_optimizer": None, **SILO},
        "federated_optimizer is missing: without it FedML trains nothing that enable_defense could act on",
    ),
    "another path": (
        {**ON, "defense_type": "gradcam_ae", "training_type": "cross_device", "backend": "MQTT_S3_MNN"},
        "gradcam_ae works with training_type: simulation and .*, found training_type: cross_device and backend: "
        "MQTT_S3_MNN",
    ),
    "a simulator that FedML lacks": ({"backend": "NCCL"}, "backend: NCCL: FedML 0.9.6 is published without"),
    "a scenario that FedML ends": (
        {"training_type": "cross_silo", "scenario": "hierarchical", "backend": "GRPC"},
        "scenario: hierarchical: FedML 0.9.6 ends each process in fedml.init",
    ),
    "a transport of FedML's alone": (
        {"training_type": "cross_silo", "scenario": "horizontal", "backend": "MQTT_WEB3"},
        "backend: MQTT_WEB3: the plug-in's cross-silo server runs over GRPC, MQTT_S3, MPI, TRPC",
    ),
    "a broker without a port": (
        {
            "training_type": "cross_silo",
            "scenario": "horizontal",
            "backend": "MQTT_S3",
            "customized_training_mqtt_config": {"BROKER_HOST": "localhost"},
        },
        "comm_args.customized_training_mqtt_config.BROKER_PORT is missing: backend: MQTT_S3 needs it",
    ),
    "browsers": (
        {"training_type": "cross_silo", "scenario": "horizontal", "backend": "MQTT_S3", "is_browser": True},
        "is_browser: true has models sent as JSON to browsers",
    ),
}


@pytest.fixture(autouse=True)
def first_start(monkeypatch) -> None:
    """FedML keeps the path of an earlier start in the same process for files that name none."""
    monkeypatch.setattr(fedml, "_global_training_type", None)
    monkeypatch.setattr(fedml, "_global_comm_backend", None)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_stops_the_run_at_the_start(plugin, mistake) -> None:
    changes, message = MISTAKES[mistake]
    with pytest.raises(SettingsError, match=message):
        fedml.init(fedml_args(**changes))


@pytest.mark.parametrize("mistake", ["unknown defense", "unknown attack", "alpha of the wrong kind"])
def test_also_for_a_program_that_never_calls_init(plugin, mistake) -> None:
    from fedml.core.security.fedml_attacker import FedMLAttacker
    from fedml.core.security.fedml_defender import FedMLDefender

    changes, message = MISTAKES[mistake]
    args = fedml_args(**changes)
    with pytest.raises(SettingsError, match=message):
        (FedMLDefender if "enable_defense" in changes else FedMLAttacker)().init(args)


def test_every_optimizer_of_fedmls_mpi_simulator_honors_a_defense_or_is_refused_with_a_reason(plugin) -> None:
    reached = set(re.findall(r"FedML_FEDERATED_OPTIMIZER_\w+", inspect.getsource(SimulatorMPI)))
    names = {getattr(fedml.constants, name) for name in reached}
    assert set(optimizers.TABLE["MPI"]) == names
    for name, reason in optimizers.TABLE["MPI"].items():
        args = fedml_args(backend="MPI", federated_optimizer=name, **ON, defense_type="median")
        if reason is None:
            configuration.check(args)
            assert name in mpi_routes.ROUTES
        else:
            with pytest.raises(SettingsError, match=f"{name} would ignore enable_defense .*{reason[:9]}"):
                configuration.check(args)
        args.enable_defense = False
        configuration.check(args)
    with pytest.raises(SettingsError, match=r"Unknown .*'FedPorx'.*Did you mean 'FedProx'"):
        configuration.check(fedml_args(backend="MPI", federated_optimizer="FedPorx"))


def test_mpi_without_mpi4py_is_answered(plugin, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(SettingsError, match=r"backend: MPI needs mpi4py .* No module .*: pip install mpi4py mpich\."):
        fedml.init(fedml_args(backend="MPI"))


def test_what_is_turned_off_is_not_checked(plugin) -> None:
    fedml.init(fedml_args(enable_defense=False, defense_type="nonsense", enable_attack=False, attack_type=7))


YAML = """
common_args: {training_type: simulation, backend: sp, random_seed: 0}
data_args: {dataset: digits}
train_args: {federated_optimizer: FedAvg, client_num_in_total: 6, client_num_per_round: 6, comm_round: 1}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "fedml_config.yaml"
        path.write_text(text)
        monkeypatch.setattr("sys.argv", ["main.py", "--cf", str(path)])
        return path

    return write


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "defense_args: {enable_defense: true, defense_type: multikrum, byzantine_client_num: 1, "
            "byzantine_client_nmu: 1}"
            "  # FedML ignores a key that it does not know",
            r"Unknown key 'byzantine_client_nmu' in defense_args\. Did you mean 'byzantine_client_num'\?",
        ),
        (
            "defense_args: {enable_defense: true, defense_type: gradcam_ae, alpha: 1.5}",
            "defense_args.alpha: a key of gradcam_ae stands inside defense_params",
        ),
        (
            "defense_args: {enable_defense: true, defense_type: gradcam_ae, defence_params: {alpha: 1.5}}",
            r"Unknown key 'defence_params' in defense_args\. Did you mean 'defense_params'\?",
        ),
        ("attack_args: {enable_attack: true, attack_type: uniform_noise, atack_prob: 1}", "Did you mean 'attack_prob'"),
        ("defense_args: [krum]", r"the section defense_args must hold keys and values, found \['krum'\]"),
        ("train_args: [", "is not YAML"),
        ("]", "is not YAML"),
    ],
)
def test_mistakes_in_the_file(plugin, config, section, message) -> None:
    config(YAML + section)
    with pytest.raises(SettingsError, match=message):
        fedml.init()


def test_a_key_of_the_simulation_in_another_section_is_not_ignored(plugin, config) -> None:
    config(YAML.replace("comm_round: 1", "comm_round: 1, drop_out: 0.5"))
    with pytest.raises(SettingsError, match=r"train_args\.drop_out: a key of simulation_args: move it there"):
        fedml.init()
    config(YAML.replace("comm_round: 1", "comm_round: 1, server_momentum: 0.5"))  # a key of FedML's own optimizers
    fedml.init()


def test_rules_inside_of_rules_and_attacks_have_their_defaults_from_train_args(plugin) -> None:
    trained = {"epochs": 3, "learning_rate": 0.2, "client_optimizer": "sgd", "weight_decay": 0.0, "batch_size": 8}
    args = fedml_args(**ON, defense_type="multi_krum", defense_params={"malicious": 1, "then": "fltrust"}, **trained)
    then = configuration.requested(configuration.DEFENSE, args).settings.then
    assert (then["type"], then["local_epochs"], then["local_batch_size"]) == ("fltrust", 3, 8)
    params = {"z": "optimal", "against": "fltrust", "against_params": {"root_images": 20}}
    args = fedml_args(**ATTACK, attack_type="alie", attack_params=params, **trained)
    against = configuration.requested(configuration.ATTACK, args).settings.against_params
    assert (against["root_images"], against["local_epochs"], against["local_learning_rate"]) == (20, 3, 0.2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("client_timeuot: 5", r"Unknown key 'client_timeuot' in server_args\. Did you mean 'client_timeout'\?"),
        ("client_timeout: -5", r"server_args\.client_timeout: expected greater than 0, found -5"),
        ("minimum_clients: 0", r"server_args\.minimum_clients: expected greater than or equal to 1, found 0"),
        ("resume: 1", r"server_args\.resume: expected a valid boolean, found 1"),
        ("minimum_clients: 9", r"server_args\.minimum_clients: found 9, but .* client_num_per_round: 6"),
        ("resume: true", r"server_args\.resume: there is nothing to resume from without checkpoint_dir"),
        ("checkpoint_dir: state, release: [1]", r"server_args\.release: found \[1\], but .* set resume: true"),
        (
            "checkpoint_dir: state, resume: true, release: [1, 99]",
            r"server_args\.release: found \[99\], which are no clients; they have the numbers 1 to 6",
        ),
        ("end_timeout: 0", r"server_args\.end_timeout: expected greater than 0, found 0"),
        ("tls: certs", r"server_args\.tls must be a mapping of keys to values, found 'certs'"),
        ("}\nclient_args: {tsl: {}", r"Unknown key 'tsl' in client_args\. Did you mean 'tls'\?"),
        ("}\nclient_args: {tls: [1]", r"client_args\.tls must be a mapping of keys to values, found \[1\]"),
        ("tls: 3}\nclient_args: {tls: {}", r"server_args\.tls must be a mapping of keys to values, found 3"),
    ],
)
def test_mistakes_in_the_server_section(plugin, config, keys, message) -> None:
    silo = YAML.replace("training_type: simulation, backend: sp", "training_type: cross_silo, scenario: horizontal")
    config(f"{silo}server_args: {{{keys}}}")
    with pytest.raises(SettingsError, match=message):
        fedml.init()


def test_both_ends_may_have_their_tls(plugin, config) -> None:
    from fedml_gradcam_ae.hooks.cross_silo.settings import read_server_settings

    silo = YAML.replace("training_type: simulation, backend: sp", "training_type: cross_silo, scenario: horizontal")
    files = [f"{{tls: {{certificate: {end}, key: {end}, authority: {end}}}}}" for end in "ab"]
    config(f"{silo}server_args: {files[0]}\nclient_args: {files[1]}")
    assert read_server_settings(fedml.init()).tls.key == "a"


def test_a_folder_that_cannot_be_written_to_shows_before_any_training(plugin, heard, tmp_path) -> None:
    from simulation import simulate

    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "rounds.jsonl").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "taken"):
        params = {"profile": "paper", "record_dir": str(folder), "probe_size": "native", "map_size": "native"}
        with pytest.raises(SettingsError, match=r"record_dir: .* cannot be written to: .* Name a folder"):
            simulate(enable_defense=True, defense_type="gradcam_ae", defense_params=params)
    assert heard == []
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["rounds.jsonl"]


def test_keys_of_other_fedml_types_may_stand_there(plugin, config) -> None:
    config(
        YAML + "defense_args: {enable_defense: true, defense_type: multikrum, byzantine_client_num: 1, norm_bound: 5.0}"
    )
    assert fedml.init().byzantine_client_num == 1


def test_a_key_of_another_section_of_fedmls_works_there_as_well(plugin, config) -> None:
    config(YAML + "defense_args: {enable_defense: true, defense_type: rfa, federated_optimizer: FedAvg, epochs: 2}")
    assert fedml.init().epochs == 2


def test_what_an_older_fedml_took_for_the_switch_may_say_no(plugin, config) -> None:
    for no in ("N", "'no'", "false"):
        config(YAML + f"defense_args: {{add_defense: {no}, defense_type: norm_diff_clipping, norm_bound: 5.0}}")
        assert not hasattr(fedml.init(), "enable_defense")


def test_a_file_for_run_simulation_needs_no_path(plugin, config, monkeypatch) -> None:
    monkeypatch.setattr(fedml, "_global_training_type", "simulation")
    monkeypatch.setattr(fedml, "_global_comm_backend", "sp")
    short = YAML.replace("training_type: simulation, backend: sp, ", "")
    config(short + "defense_args: {enable_defense: true, defense_type: median}\nsimulation_args: {drop_out: 0.1}")
    assert fedml.init().backend == "sp"


def test_an_empty_section_is_no_mistake(plugin, config) -> None:
    config(YAML + "tracking_args:\n")
    assert fedml.init().dataset == "digits"


def test_a_file_that_holds_a_list_or_text(plugin, config) -> None:
    for text in ("- a\n- b\n", "just text"):
        config(text)
        with pytest.raises(SettingsError, match="must hold keys such as train_args:"):
            fedml.init()


def test_a_missing_file(plugin, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", "--cf", "nowhere.yaml"])
    with pytest.raises(SettingsError, match=r"nowhere\.yaml cannot be read: No such file"):
        fedml.init()


def test_what_the_defense_cannot_work_with_shows_before_any_training(plugin, heard) -> None:
    from simulation import simulate

    cases = [
        ({"target_layer": "conv9"}, "no module 'conv9'"),
        (
            {"profile": "paper", "target_layer": "3", "probe_size": "native"},
            "layer '3' are 2 x 2 on images of 8 x 8 pixels",
        ),
    ]
    for params, message in cases:
        with pytest.raises(ValueError, match=message):
            simulate(enable_defense=True, defense_type="gradcam_ae", defense_params=params)
    assert heard == []


def test_a_composition_is_checked_at_the_start(plugin) -> None:
    many = {"client_num_in_total": 20, "client_num_per_round": 20}
    args = {"enable_defense": True, "defense_type": "krum", **many}
    with pytest.raises(SettingsError, match=r"defense_params of krum: then: Krum goes in front of no other rule"):
        fedml.init(fedml_args(**args, defense_params={"then": "median"}))
    with pytest.raises(SettingsError, match=r"defense_params of krum: 6 clients a round make 3 buckets"):
        fedml.init(fedml_args(**{**args, "client_num_per_round": 6}, defense_params={"pre": ["bucketing"]}))
