"""`python -m stoa_aws`: the CDK's app, which writes the templates to CDK_OUTDIR, and beside them
`kubernetes/`.

The settings (stoa_aws.environment) are given as the CDK's context, CDK_CONTEXT_JSON; `stoa infra` does both.
"""

from __future__ import annotations

from pathlib import Path

from stoa_aws import handover
from stoa_aws.shop import build, environment

app = build()
handover.write(environment(app), Path(app.synth().directory) / "kubernetes")
