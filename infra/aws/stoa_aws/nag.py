"""Exceptions from the rules of cdk-nag: each beside its resource, with its reason."""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct


def excuse(construct: IConstruct, rule: str, reason: str, *, of: Iterable[str] = ()) -> None:
    """Let a resource, and what belongs to it, break a rule of AwsSolutions.

    A rule that can find several things wrong is excused of those alone that are named, as cdk-nag names them
    (`Resource::*`).
    """
    findings = [f"[{finding}]" for finding in of] or [""]
    Validations.of(construct).acknowledge(
        *(Acknowledgment(id=f"AwsSolutions-{rule}{finding}", reason=reason) for finding in findings)
    )
