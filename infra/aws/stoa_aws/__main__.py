"""`python -m stoa_aws`: the CDK's app. It writes the templates to CDK_OUTDIR, or where `cdk` says.

What may be given with `cdk -c name=value` are the settings of stoa_aws.environment.
"""

from __future__ import annotations

from aws_cdk import App

from stoa_aws.environment import Environment
from stoa_aws.shop import build

context = App().node
build(Environment.of({name: context.try_get_context(name) for name in Environment.settings()})).app.synth()
