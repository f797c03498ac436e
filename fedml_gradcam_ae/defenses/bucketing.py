"""Bucketing in front of another rule; `steps.average_buckets` has the source and the formula."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, TooFewUploads, Verdict
from fedml_gradcam_ae.contract.settings import AssumesMalicious, DefenseSettings
from fedml_gradcam_ae.defenses.shared.in_front import InFront, InFrontSettings, Rule
from fedml_gradcam_ae.defenses.steps.average_buckets import BucketingSettings, average_buckets


@register_defense("bucketing")
class Bucketing(InFront):
    """Another rule on the means of buckets: the clients are shuffled each round and averaged s by s.

    The means differ less from each other than the updates do, which helps rules that take unusual honest clients for
    malicious. But one malicious client spoils its bucket: the other rule faces up to f malicious ones among
    ceil(K / s), so there must be 2 f + 1 buckets at least. It is told f if it has the key `malicious`. A client shares
    its bucket's flags and scores.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.bucketing import Bucketing
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.3, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> bucketing = Bucketing(Bucketing.Settings(malicious=1))
        >>> bucketing.judge(round).model  # the means of the buckets are 5.05, 1.15 and 1.2
        {'weight': tensor([[1.2000]])}
    """

    class Settings(BucketingSettings, InFrontSettings):
        """The rule that the buckets' means go to, one of those that judge by the updates alone, f, s and the seed."""

        rule: Rule = Field(default="median", description="the rule that the buckets' means go to")
        rule_params: dict[str, Any] = Field(
            default_factory=dict,
            description="its parameters; where it has the key `malicious`, it is given the number of clients that "
            "`malicious` makes of a round, each in a bucket of its own",
        )

        def rule_facing(self, malicious: int) -> DefenseSettings:
            """Return the other rule's settings, with f as a number.

            Args:
                malicious: f.
            """
            settings = self.rule_settings()
            own = isinstance(settings, AssumesMalicious) and "malicious" not in self.rule_params
            return settings.model_copy(update={"malicious": malicious}) if own else settings

        @override
        def check_clients(self, clients: int) -> None:
            """Check that there are enough buckets for the other rule.

            Raises:
                ValueError: if there are too few.
            """
            AssumesMalicious.check_clients(self, clients)
            buckets, malicious = self.buckets(clients), self.assumed(clients)
            try:
                AssumesMalicious(malicious=malicious).check_clients(buckets)
                self.rule_facing(malicious).check_clients(buckets)
            except ValueError as error:
                raise ValueError(
                    f"size: {clients} clients a round make {buckets} buckets of {self.size}: {error}"
                ) from None

    settings: Settings

    @override
    def transformed(self, round: Round) -> Round:
        """Return the round of the buckets' means."""
        return average_buckets(round, self.settings)

    @override
    def protects(self, clients: int) -> bool:
        """Return whether the other rule withstands one malicious bucket; see `rule_facing`."""
        settings = self.settings
        if not Defense.protects(self, clients):
            return False
        rule = type(self.rule)(settings.rule_facing(settings.assumed(clients)))
        return rule.protects(settings.buckets(clients))

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the other rule's verdict on the buckets' means, as one on the uploads.

        Raises:
            TooFewUploads: if there are too few uploads for f, or too few buckets for the other rule.
        """
        clients, settings = len(round.uploads), self.settings
        rule: Defense = self.rule
        malicious = settings.faced(clients, len(round.rejected))
        rule.settings = settings.rule_facing(malicious)
        try:
            AssumesMalicious(malicious=malicious).faced(settings.buckets(clients))
            return super().judge(round)
        except TooFewUploads as error:
            raise TooFewUploads(settings.clients_needed(error.needed), clients) from None
