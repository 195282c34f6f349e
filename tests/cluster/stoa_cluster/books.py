"""The audit of the shop's books, as a Job in the cluster."""

from __future__ import annotations

from stoa_cluster.installation import Installation
from stoa_cluster.stages import Figures, prove

_NAME = "audit-of-proof"
_ENDS_WITHIN = 240.0  # seconds


async def audit(shop: Installation, figures: Figures) -> None:
    """Have the audit look at all books now; raises NotProven if they do not balance."""
    await shop.cluster.kubectl("delete", "job", _NAME, "--ignore-not-found", "--wait")
    await shop.cluster.kubectl("create", "job", _NAME, "--from=cronjob/audit")
    balanced, said = await shop.cluster.job(_NAME, _ENDS_WITHIN)
    figures["books balance"] = balanced
    prove(balanced, f"the books do not balance: {said[-1500:]}")
