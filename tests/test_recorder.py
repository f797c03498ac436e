import json
import logging
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from fedml_gradcam_ae.recording import events, pictures, recorder
from fedml_gradcam_ae.recording.events import ClientReport, Measured, RoundReport


def report(number=3, clients=4, **changes):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(clients, 1, 8, 8, generator=generator)
    fields = {
        "number": number,
        "clients": [
            ClientReport(i, 20 + i, score=0.1 * i, flagged=i == 3, excluded=i == 3, weight=0.3, malicious=i == 2)
            for i in range(clients)
        ],
        "threshold": 0.25,
        "seconds": {"total": 1.5},
        "evidence": {"heat_maps": maps, "reconstructions": maps * 0.9},
        "judged": list(range(clients)),
    }
    return RoundReport(**{**fields, **changes})


BROKEN = ClientReport("x", math.nan, score=math.inf, flagged=True, excluded=True, weight=0.0, reason="NaN")


def test_lines_are_plain_json_also_for_what_json_has_no_word_for(tmp_path) -> None:
    record = recorder.FolderRecorder(tmp_path / "new" / "folder", pictures=False)
    record(report(clients=2))
    record(RoundReport(number=4, clients=[BROKEN]))
    record(Measured(number=4, values={"Test/Acc": 0.5}))
    first, second = (json.loads(line) for line in (tmp_path / "new/folder/rounds.jsonl").read_text().splitlines())
    assert first["round"] == 3
    assert first["threshold"] == 0.25
    assert first["clients"][1] == {
        "client": 1,
        "samples": 21,
        "score": 0.1,
        "flagged": False,
        "excluded": False,
        "weight": 0.3,
        "malicious": False,
        "reason": None,
        "shortened": 0,
    }
    assert (second["clients"][0]["score"], second["clients"][0]["samples"]) == (None, None)
    metrics = json.loads((tmp_path / "new/folder/metrics.jsonl").read_text())
    assert {**metrics, "run": 0} == {"run": 0, "round": 4, "Test/Acc": 0.5}


def test_the_loss_of_a_ruined_model_does_not_end_the_run_that_is_to_show_it(tmp_path) -> None:
    recorder.FolderRecorder(tmp_path)(Measured(number=1, values={"Test/Loss": math.nan, "Test/Acc": 0.1}))
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["Test/Loss"], line["Test/Acc"]) == (None, 0.1)


def test_another_run_in_the_same_folder_loses_nothing(tmp_path) -> None:
    for number in (1, 2):
        recorder.FolderRecorder(tmp_path, pictures=False)(report(number=number))
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2


@pytest.fixture
def quiet_log(monkeypatch):
    """The plug-in's logger as in a program that set nothing up."""
    monkeypatch.setattr(recorder.log, "handlers", [])
    monkeypatch.setattr(recorder.log, "propagate", True)
    recorder.log.setLevel(logging.NOTSET)
    yield recorder.log
    recorder.log.setLevel(logging.NOTSET)


def test_without_logging_of_the_programs_own_the_lines_go_to_stderr_once(quiet_log, capsys) -> None:
    for _ in range(2):
        recorder.show_log()
    recorder.log_event(Measured(number=1, values={"Test/Acc": 0.5}))
    assert capsys.readouterr().err == "round 1: test accuracy 0.5000\n"


def test_a_program_with_logging_of_its_own_keeps_it(quiet_log) -> None:
    quiet_log.setLevel(logging.INFO)
    recorder.show_log()
    assert quiet_log.handlers == []


def test_log_lines_say_who_and_why(quiet_log, caplog) -> None:
    caplog.set_level(logging.INFO, logger="fedml_gradcam_ae")
    recorder.log_event(report())
    recorder.log_event(RoundReport(number=4, clients=[BROKEN], global_model_stays=True))
    recorder.log_event(Measured(number=4, values={"Train/Acc": 0.7, "Test/Acc": 0.51234}))
    assert caplog.messages == [
        "round 3: attacking: 2",
        "round 3: left out 1 of 4 clients: 3 (score 0.3 > 0.25)",
        "round 4: no client is left, the global model stays as it was",
        "round 4: left out 1 of 1 clients: x (NaN)",
        "round 4: test accuracy 0.5123",
    ]


def test_without_a_defense_that_names_clients_nothing_is_said(quiet_log, caplog) -> None:
    caplog.set_level(logging.INFO, logger="fedml_gradcam_ae")
    recorder.log_event(RoundReport(number=1, clients=[ClientReport(0, 20, malicious=False)]))
    assert caplog.messages == []


def test_wandb_gets_counts_scores_and_seconds(monkeypatch) -> None:
    logged = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(log=logged.append))
    recorder.log_to_wandb(report(clients=2))
    recorder.log_to_wandb(Measured(number=1, values={}))
    assert logged == [
        {
            "round": 3,
            "Defense/Excluded": 0,
            "Defense/Threshold": 0.25,
            "Defense/Seconds": 1.5,
            "Defense/Score/0": 0.0,
            "Defense/Score/1": 0.1,
        }
    ]


def test_listeners_hear_only_while_they_listen() -> None:
    heard = []
    events.publish("before")
    with events.listening(heard.append):
        events.publish("during")
    events.publish("after")
    assert heard == ["during"]


@pytest.mark.parametrize("clients", [1, 4, 23])
def test_the_heat_map_picture_shows_each_client_twice_and_frames_attackers(tmp_path, clients) -> None:
    figure = pictures.heat_maps(report(clients=clients))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 2 * clients
    framed = [axes for axes in shown if axes.patches]
    assert len(framed) == (2 if clients > 2 else 0)
    assert next(axes.get_title() for axes in shown if axes.get_title()) == "client 0"
    pictures.save(figure, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_stand_maps_that_are_not_finite(tmp_path) -> None:
    maps = torch.full((2, 1, 4, 4), math.nan)
    broken = report(clients=2, evidence={"heat_maps": maps, "reconstructions": maps})
    pictures.save(pictures.heat_maps(broken), tmp_path / "maps.png")


def test_the_error_picture_has_a_bar_per_score_and_the_threshold(tmp_path) -> None:
    with_broken = report()
    figure = pictures.errors(RoundReport(3, [*with_broken.clients, BROKEN], threshold=0.25))
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, None, "///"]
    assert axes.lines[0].get_ydata()[0] == 0.25
    pictures.save(figure, tmp_path / "errors.png")


def test_the_accuracy_picture_has_a_panel_per_attack_and_a_line_per_defense(tmp_path) -> None:
    curves = [pictures.Curve("a", "none", [0.1, 0.5]), pictures.Curve("a", "x", [0.1, 0.2])]
    figure = pictures.accuracy(curves, "title")
    assert [axes.get_title() for axes in figure.axes] == ["none", "x"]
    assert [line.get_label() for line in figure.axes[1].lines] == ["a"]
    assert list(figure.axes[1].lines[0].get_ydata()) == [0.1, 0.2]
