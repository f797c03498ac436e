"""A judgment with whatever a test does not care about filled in."""

from benchmark.measures.judgments import Judgment


def judgment(round=1, malicious=None, scores=None, flagged=None, excluded=None, threshold=None, seconds=None):
    return Judgment(round, malicious, scores, flagged, excluded, threshold, seconds or {})
