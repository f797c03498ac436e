"""The report in a real browser, if there is one."""

import pytest

import browser
import made_up
from benchmark.report import report

needs_chromium = pytest.mark.skipif(browser.installed() is None, reason="no Chromium is installed")

ATTACKS = [{"type": kind, "attackers": 2} if kind != "none" else {"type": kind} for kind in ("none", "mpaf", "fang")]
ATTACKS += [{"type": "constrained_perturbation", "radius": radius} for radius in (0.3, 1.0)]
DEFENSES = [{"type": kind} for kind in ("none", "fedml:rfa", "trimmed_mean", "gradcam_krum", "multi_krum")]


@needs_chromium
def test_a_browser_shows_it_without_network_errors_or_sideways_scrolling(tmp_path) -> None:
    made_up.write(tmp_path, ATTACKS, DEFENSES, [0, 1], ["flame", "constrained_clipping"], failed=[3])
    report(tmp_path)
    url = (tmp_path / "report.html").as_uri()
    with browser.browser() as page:
        for width, height in (browser.DESKTOP, browser.PHONE):
            page.open(url, (width, height))
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("getComputedStyle(document.querySelector('.verdict')).borderLeftWidth") == "5px"
            # the answer is on the first screen
            assert page.evaluate("document.querySelector('.verdict').getBoundingClientRect().bottom") < height
        assert page.evaluate("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 100)")
        page.pdf(tmp_path / "report.pdf")
        asked = [
            event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
        ]
        said = [event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")]
        failed = [event for event in page.events if event["method"] == "Runtime.exceptionThrown"]
    assert {address for address in asked if not address.startswith("data:")} == {url}
    assert said == failed == []
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
