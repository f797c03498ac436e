"""report.html: whole, honest, traceable, and in need of nothing else."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

import made_up
from benchmark.measures.intervals import Estimate
from benchmark.measures.observations import Observations
from benchmark.measures.results import load
from benchmark.report import report
from benchmark.report.figures import file_name
from benchmark.report.first_screen import first_screen
from benchmark.report.markup import Html, name, tag
from benchmark.report.numbers import number, shade
from benchmark.report.roc import GRID, mean_curve
from benchmark.report.scores import normalized
from benchmark.report.tables.check import check
from benchmark.report.view import View
from judged import judgment

ATTACKS = [{"type": "none"}, {"type": "mpaf"}]
DEFENSES = [{"type": "none"}, {"type": "fedml:rfa"}, {"type": "gradcam_ae", "profile": "paper"}]
VOID = {"meta", "img", "br", "wbr"}


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects attributes and text."""

    def __init__(self, text) -> None:
        super().__init__()
        self.open, self.attributes, self.ids = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, element, attributes) -> None:
        self.attributes += [(element, *pair) for pair in attributes]
        self.ids += [value for key, value in attributes if key == "id"]
        if element not in VOID:
            self.open.append(element)

    def handle_startendtag(self, element, attributes) -> None:
        self.handle_starttag(element, attributes)
        if element not in VOID:
            self.open.pop()

    def handle_endtag(self, element) -> None:
        assert self.open.pop() == element


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    detectors = {"gradcam_ae": made_up.Detector({"mpaf": 5.0}), "flame": made_up.Detector({"mpaf": -3.0})}
    folders = made_up.write(out, ATTACKS, DEFENSES, [0, 1, 2], ["flame"], detectors, clients=20, failed=[1])
    from fedml_gradcam_ae.recording import pictures

    figure = pictures.accuracy([pictures.Curve("d", "a", [0.1, 0.2])], "t")
    for position in (2, 5, 8):
        for round in (3, 6):
            pictures.save(figure, out / folders[position] / f"round-00{round}-heat-maps.png")
    pictures.save(figure, out / folders[2] / "round-006-trigger-maps.png")
    report(out)
    return out


@pytest.fixture(scope="module")
def page(out):
    return (out / "report.html").read_text(encoding="utf-8")


def test_it_is_well_formed_and_its_links_lead_somewhere(page) -> None:
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    targets = [value[1:] for _, key, value in reader.attributes if key == "href" and value.startswith("#")]
    assert {"matrix", "curves", "detection", "scores", "roc", "gallery", "runtime", "failures", "runs"} <= set(targets)
    assert set(targets) <= set(reader.ids)


def test_it_needs_no_other_file_and_no_network(page) -> None:
    for element, key, value in Reader(page).attributes:
        if key in {"src", "srcset", "href", "xlink:href", "data", "action"}:
            assert value.startswith(("#", "data:")), (element, key, value)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_number_names_runs_that_exist(out, page) -> None:
    folders = {run.folder for run in load(out).runs}
    sources = re.findall(r'class="n" title="(?:\d+ (?:seeds?; )?runs: )?([^"]*)"', page)
    assert len(sources) > 100
    for source in sources:
        named = re.sub(r"^\d+ seeds?; runs: ", "", source).split(", ")
        assert set(named) <= folders


def test_every_number_in_a_table_is_traced(page) -> None:
    for row in re.findall(r"<td[^>]*>(.*?)</td>", page):
        if re.search(r"\d\.\d", row):
            assert 'class="n"' in row, row


def test_a_number_is_the_mean_of_its_runs(out, page) -> None:
    values = [made_up.accuracy_of("mpaf", "gradcam_ae", 6, seed) for seed in (0, 1, 2)]
    (matrix,) = re.findall(r'<section id="matrix">.*?</section>', page, re.DOTALL)
    (row,) = re.findall(r"<tr><th[^>]*>gradcam_<wbr>ae \(paper\)</th>(.*?)</tr>", matrix.split("</table>")[0])
    assert f">{np.mean(values):.3f}<" in row.split("</td>")[1]


def test_the_defect_of_a_stock_rule_stands_beside_its_row(page) -> None:
    assert 'fedml:<wbr>rfa<small class="defect">as shipped: with equal sample counts' in page


def test_a_failed_run_shows_its_error_as_text(page) -> None:
    assert "RuntimeError: Expected 4 &amp; found &lt;5&gt;" in page
    assert "1 of 18 runs failed and 0 are missing." in page


def test_every_run_shows_its_whole_configuration(out, page) -> None:
    runs = load(out).runs
    assert page.count("&quot;fedml-gradcam-ae&quot;: &quot;0.1.0&quot;") == len(runs)
    assert all(run.folder in page for run in runs)


def test_figures_lie_beside_it_as_png_and_svg(out, page) -> None:
    names = {path.stem for path in (out / "figures").glob("*.svg")}
    assert names == {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {"accuracy-no-attack", "accuracy-mpaf", "scores-mpaf", "roc-mpaf", "runtime"}
    assert page.count("<svg") == len(names)
    assert len(re.findall(r'<svg[^>]* role="img" aria-label="[^"]+"', page)) == len(names)


def test_the_gallery_holds_the_last_pictures_of_a_few_runs(out, page) -> None:
    images = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]+)"', page)
    assert images == [
        "Heat maps of an image without and with the trigger: no attack, gradcam_ae (paper), seed 0",
        "Heat maps of every client: no attack, gradcam_ae (paper), seed 0",
        "Heat maps of every client: mpaf, gradcam_ae (paper), seed 0",
    ]


def test_it_is_the_same_when_it_is_written_again(out, page, capsys) -> None:
    report(out)
    assert (out / "report.html").read_text(encoding="utf-8") == page
    assert (out / "table.txt").read_text() in capsys.readouterr().out


def verdict(out, **changes):
    made_up.write(out, **{"attacks": ATTACKS, "defenses": DEFENSES, "seeds": [0, 1, 2], **changes})
    results = load(out)
    (text,) = re.findall(r'<p class="verdict">(.*?)</p>', first_screen(View(out, results, Observations(results))))
    return re.sub(r"<[^>]+>", "", text)


def test_the_verdict_names_the_best(tmp_path) -> None:
    def accuracy(attack, defense, round, seed):
        return {"gradcam_ae": 0.7, "fedml:rfa": 0.4}.get(defense, 0.2 if attack != "none" else 0.8) + 0.001 * seed

    text = verdict(tmp_path, accuracy=accuracy)
    assert text.startswith("Use gradcam_ae (paper). Of the defenses here it keeps the highest accuracy")
    assert "0.701 [0.700, 0.702] under mpaf over 3 seeds. Without a defense it would be 0.201" in text
    assert text.endswith("Every other defense that was compared is worse with 95 % confidence.")


def test_the_verdict_does_not_sell_what_does_not_help(tmp_path) -> None:
    text = verdict(tmp_path, accuracy=lambda attack, defense, round, seed: 0.7 + 0.01 * ((seed + len(defense)) % 3))
    assert text.startswith("None of these defenses is shown to be better than no defense at all.")


def test_the_verdict_on_a_single_seed_is_that_there_is_none(tmp_path) -> None:
    assert verdict(tmp_path, seeds=[0]).startswith("Too little evidence for a recommendation.")


@pytest.mark.parametrize(
    "changes",
    [{"missing": range(18)}, {"failed": range(18)}, {"attacks": ATTACKS[:1], "defenses": DEFENSES[:1]}],
    ids=["all missing", "all failed", "undefended without attack"],
)
def test_a_report_on_next_to_nothing(tmp_path, changes) -> None:
    assert verdict(tmp_path, **changes) == "No recommendation: there are no runs to base it on."
    report(tmp_path)
    Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert check(tmp_path) == 0


def test_several_settings_have_parts_of_their_own(tmp_path) -> None:
    settings = [{"name": "digits", "partition": "iid"}, {"name": "digits", "partition": "shards"}]
    made_up.write(tmp_path, ATTACKS, DEFENSES[:2], [0], settings=settings)
    report(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    Reader(page)
    assert page.count("<h3>partition iid</h3>") == page.count("<h3>partition shards</h3>") >= 4
    assert (tmp_path / "figures" / "accuracy-partition-shards-mpaf.svg").exists()


def test_text_is_escaped_and_names_may_break() -> None:
    assert tag("p", "a<b", Html("<b>c</b>"), None, class_="x") == '<p class="x">a&lt;b<b>c</b></p>'
    assert name("fedml:<rfa>_x") == "fedml:<wbr>&lt;rfa&gt;_<wbr>x"
    assert file_name("accuracy  gradcam_ae (paper), beta 0.5") == "accuracy-gradcam-ae-paper-beta-0.5"


def test_how_a_number_looks() -> None:
    found = Estimate(-0.0004, -0.2, 0.1, 3, ("a", "b"))
    assert number(found, signed=True) == (
        '<span class="n" title="3 seeds; runs: a, b">0.000<small> [\N{MINUS SIGN}0.200, +0.100]</small></span>'
    )
    assert "small" not in number(Estimate(0.5, None, None, 1, ("a",)))
    assert "not defined" in number(None)
    assert [shade(value) for value in (None, 0.5)] == [None, "background:#ffffff"]
    assert shade(0.0, low=1.0, high=0.0) == shade(1.0)


def test_normalized_scores() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.inf, np.nan])
    found = normalized(scores)
    assert found[:5] == pytest.approx((scores[:5] - 3.5) / (1.4826 * 1.5))
    assert found[5] == 10
    assert np.isnan(found[6])
    assert normalized(np.array([2.0, 2.0, 2.0])).tolist() == [0, 0, 0]
    # more than half are alike: the standard deviation takes the place of a spread of zero
    assert normalized(np.array([2.0, 2.0, 2.0, 4.0]))[3] == pytest.approx(2 / np.std([2, 2, 2, 4]))
    assert normalized(np.array([1.0, np.inf, np.inf, np.inf])).tolist() == [-10, 0, 0, 0]


def test_the_mean_roc_curve_has_the_mean_area() -> None:
    generator = np.random.default_rng(0)
    rounds, areas = [], []
    for number_ in range(1, 9):
        truth = generator.permutation([True] * 3 + [False] * 17)
        scores = generator.normal(0, 1, 20) + truth
        rounds.append(judgment(number_, truth.tolist(), scores.tolist()))
        areas.append(roc_auc_score(truth, scores))
    assert auc(GRID, mean_curve(rounds)) == pytest.approx(np.mean(areas), abs=0.005)
    assert mean_curve([judgment(1, [False, False], [1.0, 2.0])]) is None


def test_a_detector_that_watched_in_every_run_is_compared_where_nobody_acted(out) -> None:
    observations = Observations(load(out))
    found = observations.of_watcher("", "mpaf", "undefended", "flame", "AUROC")
    assert len(found) == 3
