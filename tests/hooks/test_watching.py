"""Detectors beside the one that acts: the same uploads, the same truth, and no effect."""

import json
import math

import pytest

from fedml_gradcam_ae import Attack, Defense, Verdict
from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
from fedml_gradcam_ae.recording.events import RoundReport
from fedml_gradcam_ae.recording.recorder import as_json
from fedml_gradcam_ae.recording.watching import watching
from simulation import same, simulate

NOISE = {"enable_attack": True, "attack_type": "uniform_noise", "attack_params": {"attackers": [2]}}
DEFENDED = {"enable_defense": True, "defense_type": "multi_krum", "defense_params": {"malicious": 1}}


class Witness(Defense):
    """Remembers what it was given, and suspects the first client."""

    def __init__(self) -> None:
        self.rounds = []

    def judge(self, round):
        self.rounds.append(round)
        out = [position == 0 for position in range(len(round.uploads))]
        return Verdict(flagged=out, excluded=out, weights=[0.0] + [1.0 / (len(out) - 1)] * (len(out) - 1))


def reports(heard):
    return [event for event in heard if isinstance(event, RoundReport)]


@pytest.mark.parametrize(
    "options", [{}, NOISE, {**NOISE, **DEFENDED}], ids=["nobody acts", "attack", "attack and defense"]
)
def test_watching_changes_nothing(plugin, heard, options) -> None:
    plain = simulate(**options)
    heard.clear()
    witness = Witness()
    with watching({"witness": witness}):
        watched = simulate(**options)
    if options:  # without attack and defense FedML averages by itself, in another order of sums
        assert same(plain, watched)
    assert [round.number for round in witness.rounds] == [1, 2]
    for report in reports(heard):
        assert report.watched["witness"].flagged == [True] + [False] * 5
        assert [c.malicious for c in report.clients] == [bool(options) and c.client == 2 for c in report.clients]


def test_a_watcher_says_what_the_same_defense_says_that_acts(plugin, heard) -> None:
    with watching({"beside": MultiKrum(MultiKrum.Settings(malicious=1))}):
        simulate(**NOISE, **DEFENDED)
    for report in reports(heard):
        assert report.watched["beside"].scores == [client.score for client in report.clients]
        assert report.watched["beside"].excluded == [client.excluded for client in report.clients]


def test_an_unusable_upload_is_nobodys_to_judge_and_everybodys_to_flag(plugin, heard, types) -> None:
    from fedml_gradcam_ae import register_attack
    from test_round import broken

    @register_attack("broken_beside")
    class Broken(Attack):
        def poison(self, round, attackers):
            return [broken(round.uploads[i], "NaN") for i in attackers]

    witness, krum = Witness(), MultiKrum(MultiKrum.Settings(malicious=1))
    attack = {"enable_attack": True, "attack_type": "broken_beside", "attack_params": {"attackers": [2]}}
    for options in (attack, {**attack, **DEFENDED}):
        heard.clear()
        with watching({"witness": witness, "krum": krum}):
            simulate(comm_round=1, **options)
        (report,) = reports(heard)
        assert 2 not in witness.rounds[-1].client_ids
        assert report.watched["krum"].scores[2] == math.inf
        assert report.watched["witness"].flagged == [True, False, True, False, False, False]
        line = json.loads(json.dumps(as_json(report), allow_nan=False))
        assert line["watched"]["krum"]["scores"][2] is None


def test_nobody_watches_after_the_block(plugin, heard) -> None:
    with watching({"witness": Witness()}):
        pass
    simulate(comm_round=1, **NOISE)
    assert reports(heard)[0].watched == {}
