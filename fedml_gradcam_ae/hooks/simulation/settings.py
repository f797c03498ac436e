"""Settings of a simulated federation beside FedML's own: uploads that get lost, and momentum."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pydantic import Field

from fedml_gradcam_ae.contract.settings import Parameters, SettingsError
from fedml_gradcam_ae.contract.yaml_file import read_sections
from fedml_gradcam_ae.hooks.section import check_keys, read_section

SECTION, OWNER = "simulation_args", "a simulation"  # The section's name in the YAML file, and its subject in messages.


class SimulationSettings(Parameters):
    """Keys of the YAML section `simulation_args`, for `training_type: simulation` with `backend: sp` or `MPI`."""

    drop_out: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="the share of a round's clients whose upload is lost, drawn anew each round by `random_seed`; one "
        "upload at least arrives",
    )
    worker_momentum: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="b: a client uploads w_g + m with m = (1 - b) u + b m', u its update and m' its m of the round "
        "before (Karimireddy et al. 2021)",
    )
    server_momentum: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="b: the server moves by v = b v' + u with u the aggregated update and v' its v of the round before "
        "(Hsu et al. 2019)",
    )


def read_simulation_settings(args: Any) -> SimulationSettings:
    """Return the settings of the simulation, read from FedML's flat args.

    With a YAML file, a key counts only if it stands in the section, since FedML's own optimizers have a
    `server_momentum` in `train_args`. For the same reason the section is for FedAvg alone.

    Raises:
        SettingsError: for a wrong kind of value or a value out of range.
    """
    path = getattr(args, "yaml_config_file", "")
    given = read_sections(path).get(SECTION, {}) if path else vars(args) if args is not None else {}
    if getattr(args, "federated_optimizer", "FedAvg") != "FedAvg":
        given = {}
    own = SimpleNamespace(**{key: given[key] for key in SimulationSettings.model_fields if key in given})
    return read_section(SimulationSettings, own, SECTION, OWNER)


def check_simulation_section(args: Any) -> None:
    """Check the section `simulation_args`, and that FedML has the simulator.

    Raises:
        SettingsError: for an unknown key, a wrong kind of value or a value out of range, for the section in a run that
            is no simulation with `backend: sp` or `MPI`, and for `backend: NCCL`.
    """
    read_simulation_settings(args)
    check_keys(SimulationSettings, args, SECTION)
    where = getattr(args, "training_type", None), getattr(args, "backend", None)
    if where == ("simulation", "NCCL"):
        raise SettingsError(
            "backend: NCCL: FedML 0.9.6 is published without this simulator (fedml.simulation.nccl); use sp or MPI."
        )
    path = getattr(args, "yaml_config_file", "")
    sections = read_sections(path) if path else {}
    for key in ("drop_out", "worker_momentum"):
        if key in sections.get("train_args", {}):
            raise SettingsError(f"train_args.{key}: a key of {SECTION}: move it there.")
    if SECTION not in sections:
        return
    if getattr(args, "federated_optimizer", "FedAvg") != "FedAvg":
        raise SettingsError(
            f"{SECTION} works with federated_optimizer: FedAvg, found {args.federated_optimizer}: leave it out."
        )
    if where not in (("simulation", "sp"), ("simulation", "MPI")):
        raise SettingsError(
            f"{SECTION} works with training_type: simulation and backend: sp or MPI, found {where[0]} and {where[1]}: "
            "leave it out."
        )
