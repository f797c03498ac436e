"""Reading a benchmark's folder back."""

import json
import math

import pytest

import made_up
from benchmark.measures.judgments import acting, watched
from benchmark.measures.results import load
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.recording.events import ClientReport, RoundReport, Watched
from fedml_gradcam_ae.recording.recorder import as_json

NOISE = {"type": "uniform_noise", "attackers": 2}


@pytest.fixture
def out(tmp_path):
    made_up.write(tmp_path, [{"type": "none"}, NOISE], [{"type": "none"}, {"type": "krum"}], [0], ["flame"], failed=[3])
    return tmp_path


def test_finished_failed_and_missing_runs(out) -> None:
    (next(out.glob("none--krum*")) / "result.json").unlink()
    results = load(out)
    assert [run.state for run in results.runs] == ["finished", "missing", "finished", "failed"]
    assert (results.name, results.rounds, results.vote_every) == ("made up", 6, 3)
    undefended = results.runs[2]
    assert [test.round for test in undefended.tests] == [1, 2, 3, 4, 5, 6]
    assert undefended.acting == []
    assert len(undefended.watched["flame"]) == 6
    assert undefended.config["versions"]["fedml"] == "0.9.6"
    assert (undefended.seconds, undefended.peak_memory) == (102.0, 2**30)
    assert results.runs[3].error.endswith("RuntimeError: Expected 4 & found <5>\n")


def test_a_run_without_attack_defense_and_watchers_has_no_rounds(tmp_path) -> None:
    made_up.write(tmp_path, [{"type": "none"}], [{"type": "none"}], [0])
    assert not list(tmp_path.glob("*/rounds.jsonl"))
    (run,) = load(tmp_path).finished
    assert (run.acting, run.watched) == ([], {})


def test_what_the_recorder_writes_is_what_is_read() -> None:
    scores = [0.1, math.inf, 0.3]
    clients = [ClientReport(i, 9, score, i == 1, i == 1, 0.5, i == 1) for i, score in enumerate(scores)]
    beside = Watched([0.5, math.inf, 0.7], [False, True, False], None, 0.6, {"total": 0.2})
    line = json.loads(json.dumps(as_json(RoundReport(3, clients, 0.2, {"total": 1.5}, watched={"beside": beside}))))
    said = acting(line)
    assert (said.round, said.threshold, said.seconds) == (3, 0.2, {"total": 1.5})
    assert said.scores == scores
    assert said.flagged == said.excluded == said.malicious == [False, True, False]
    other = watched(line)["beside"]
    assert other.scores == [0.5, math.inf, 0.7]
    assert other.excluded is None


def test_a_rule_without_scores_has_none_even_if_an_upload_was_unusable() -> None:
    clients = [ClientReport(0, 9, None, True, True, 0.0, None, "NaN"), ClientReport(1, 9, None, False, False, 1.0)]
    said = acting(as_json(RoundReport(1, clients)))
    assert said.scores is None
    assert said.malicious is None
    assert said.excluded == [True, False]


def test_a_rule_that_does_not_tell_clients_apart_names_nobody() -> None:
    clients = [ClientReport(0, 9, None, True, True, 0.0), ClientReport(1, 9)]
    said = acting(as_json(RoundReport(1, clients)))
    assert said.flagged is said.excluded is None


def test_what_cannot_be_read_is_said(out) -> None:
    with pytest.raises(SettingsError, match=r"holds no matrix\.json: it must be a folder that"):
        load(out / "nowhere")
    tests = next(out.glob("uniform_noise--none*")) / "tests.jsonl"
    whole = tests.read_text()
    tests.write_text('{"round": 1}\n')
    with pytest.raises(SettingsError, match="lacks the key 'accuracy', so that another version"):
        load(out)
    tests.write_text(whole)
    lines = tests.with_name("rounds.jsonl")
    lines.write_text(lines.read_text()[:-20])
    with pytest.raises(SettingsError, match=r"rounds\.jsonl, line 6 is not JSON"):
        load(out)
    lines.write_text("[1]\n")
    with pytest.raises(SettingsError, match=r"line 1 must be a JSON object, found list"):
        load(out)
