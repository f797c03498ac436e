"""The outcome of a round with fewer usable uploads than the defense's guarantee needs."""

from __future__ import annotations

from typing import Literal

from fedml_gradcam_ae.contract.round import Round, TooFewUploads, Verdict, sample_weights

Policy = Literal["keep_global", "average", "stop"]
_WORDS = {"keep_global": "the global model stays", "average": "all of them are averaged"}  # For the report's line.


def answer_too_few(error: TooFewUploads, policy: Policy, round: Round, name: str) -> tuple[Verdict, str]:
    """Return a verdict in place of the defense's, and a line for the report.

    Args:
        error: the error that the defense raised.
        policy: the setting `on_too_few`: keep the global model, average all usable uploads, or stop the run.
        round: the round, with at least one upload.
        name: the name of the defense.

    Returns:
        The verdict, and the line. No client is flagged.

    Raises:
        RuntimeError: if the setting is `stop`.
    """
    what = f"{name} needs {error.needed} usable uploads, found {error.found}"
    if policy == "stop":
        raise RuntimeError(f"round {round.number}: {what}, and on_too_few: stop ends the run.") from error
    keeps = policy == "keep_global"
    out = [keeps] * len(round.uploads)
    verdict = Verdict(
        flagged=[False] * len(out), excluded=out, weights=sample_weights(round.samples, out), seconds={"total": 0.0}
    )
    return verdict, f"{what}: {_WORDS[policy]} (on_too_few: {policy})"
