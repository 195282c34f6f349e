"""`python -m stoa_aws`: the CDK's app, which writes the templates to CDK_OUTDIR.

The settings (stoa_aws.environment) are given as the CDK's context, CDK_CONTEXT_JSON; `stoa infra` does both.
"""

from __future__ import annotations

from stoa_aws.shop import build

build().synth()
