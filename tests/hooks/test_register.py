import sys
from typing import Any

import fedml_gradcam_ae
from simulation import simulate

SINGLETONS = {"_defender_instance", "_attacker_instance", "_dp_instance", "_fhe_instance", "_instance", "mlops_args"}


def attributes() -> dict[tuple[str, str], Any]:
    """Every attribute of every FedML module, and of every class defined there."""
    found: dict[tuple[str, str], Any] = {}
    for module_name, module in list(sys.modules.items()):
        if module is None or not (module_name == "fedml" or module_name.startswith("fedml.")):
            continue
        for name, value in list(vars(module).items()):
            found[module_name, name] = value
            if isinstance(value, type) and value.__module__.startswith("fedml."):
                for inner, attribute in vars(value).items():
                    if inner not in SINGLETONS:
                        found[f"{module_name}.{name}", inner] = attribute
    return found


def test_unregister_leaves_every_fedml_attribute_as_it_was() -> None:
    fedml_gradcam_ae.register()  # imports what it patches
    fedml_gradcam_ae.unregister()
    before = attributes()
    assert len(before) > 10_000

    fedml_gradcam_ae.register()
    patched = attributes()
    changed = {key for key in before if patched.get(key) is not before[key]}
    assert ("fedml", "init") in changed
    assert ("fedml.simulation.sp.fedavg", "FedAvgAPI") in changed
    fedml_gradcam_ae.unregister()
    after = attributes()
    assert before.keys() == after.keys()
    assert [key for key in before if after[key] is not before[key]] == []


def test_also_after_a_run() -> None:
    import fedml

    settings = {
        "enable_defense": True,
        "defense_type": "gradcam_ae",
        "defense_params": {"profile": "paper", "probe_size": "native", "map_size": "native", "epochs": 2},
        "enable_attack": True,
        "attack_type": "uniform_noise",
    }
    # The first run of a process leaves values in FedML's own globals, with or without the plug-in.
    fedml_gradcam_ae.register()
    simulate(**settings)
    fedml_gradcam_ae.unregister()

    before = attributes()
    fedml_gradcam_ae.register()
    simulate(**settings)
    fedml_gradcam_ae.unregister()
    after = attributes()
    own = {("fedml", "_global_training_type"), ("fedml", "_global_comm_backend")}
    assert [key for key in before if key not in own and after[key] is not before[key]] == []
    assert fedml._global_training_type == "simulation"


def test_registering_twice_is_as_once() -> None:
    fedml_gradcam_ae.register()
    once = attributes()
    fedml_gradcam_ae.register()
    twice = attributes()
    assert [key for key in once if twice[key] is not once[key]] == []
    fedml_gradcam_ae.unregister()
    fedml_gradcam_ae.unregister()
    import fedml

    assert fedml.init.__module__ == "fedml"
