"""The web application firewall in front of everything, at CloudFront."""

from __future__ import annotations

import json

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs
from aws_cdk import aws_wafv2 as waf
from constructs import Construct

from stoa_aws.environment import Environment

# The edge has limits of its own for users and addresses (stoa_gateway.settings.RateLimits); these stop a
# flood before it gets there. Of one address, in so many seconds.
_WINDOW = 300
_REQUESTS = 20_000
_SIGN_INS = 1_000

# What is beyond them is answered as the edge answers (stoa_gateway.replies). What is refused counts as well:
# only who is silent for a whole window is surely let in again.
_TOO_MANY = "too-many"
_ANSWER = {
    "code": 8,  # RESOURCE_EXHAUSTED
    "message": "too many requests, please slow down",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMITED", "domain": "stoa"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": f"{_WINDOW}s"},
    ],
}

# Rules by AWS, in the order in which they are asked; those that are named only count. Sizes are the edge's to
# judge: AWS stops at 10 KiB of cookies, most of which are other applications' and dropped, at 2 KiB of query,
# 1 KiB of path and 8 KiB of body. And who sends webhooks need not say so in a user agent.
_MANAGED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AWSManagedRulesAmazonIpReputationList", ()),
    ("AWSManagedRulesKnownBadInputsRuleSet", ()),
    (
        "AWSManagedRulesCommonRuleSet",
        (
            "NoUserAgent_HEADER",
            "SizeRestrictions_BODY",
            "SizeRestrictions_Cookie_HEADER",
            "SizeRestrictions_QUERYSTRING",
            "SizeRestrictions_URIPATH",
        ),
    ),
    ("AWSManagedRulesSQLiRuleSet", ()),
)


class Firewall(Construct):
    """Limits for an address, then AWS' rules; what is blocked is logged without who asked."""

    def __init__(self, scope: Construct, construct_id: str, at: Environment) -> None:
        super().__init__(scope, construct_id)
        limits = [
            self._limit(0, "flood", _REQUESTS),
            self._limit(1, "guessing", _SIGN_INS, path="/api/v1/auth/"),
        ]
        managed = [
            self._managed(number, name, only_counted)
            for number, (name, only_counted) in enumerate(_MANAGED, start=len(limits))
        ]
        self.acl = waf.CfnWebACL(
            self,
            "acl",
            name=at.named("front"),
            scope="CLOUDFRONT",
            default_action=waf.CfnWebACL.DefaultActionProperty(allow=waf.CfnWebACL.AllowActionProperty()),
            rules=[*limits, *managed],
            custom_response_bodies={
                _TOO_MANY: waf.CfnWebACL.CustomResponseBodyProperty(
                    content_type="APPLICATION_JSON", content=json.dumps(_ANSWER)
                )
            },
            visibility_config=_seen("front"),
        )
        log = logs.LogGroup(
            self,
            "log",
            log_group_name=f"aws-waf-logs-{at.named('front')}",  # WAF writes to groups of this name alone
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        waf.CfnLoggingConfiguration(
            self,
            "logging",
            resource_arn=self.acl.attr_arn,
            log_destination_configs=[log.log_group_arn],
            # Tokens, cookies and what was searched for say who somebody is.
            redacted_fields=[
                waf.CfnLoggingConfiguration.FieldToMatchProperty(single_header={"Name": "authorization"}),
                waf.CfnLoggingConfiguration.FieldToMatchProperty(single_header={"Name": "cookie"}),
                waf.CfnLoggingConfiguration.FieldToMatchProperty(query_string={}),
            ],
            logging_filter={
                "DefaultBehavior": "DROP",
                "Filters": [
                    {
                        "Behavior": "KEEP",
                        "Requirement": "MEETS_ANY",
                        "Conditions": [{"ActionCondition": {"Action": "BLOCK"}}],
                    }
                ],
            },
        )

    @staticmethod
    def _limit(priority: int, name: str, limit: int, path: str = "") -> waf.CfnWebACL.RuleProperty:
        scope = (
            waf.CfnWebACL.StatementProperty(
                byte_match_statement=waf.CfnWebACL.ByteMatchStatementProperty(
                    field_to_match=waf.CfnWebACL.FieldToMatchProperty(uri_path={}),
                    positional_constraint="STARTS_WITH",
                    search_string=path,
                    text_transformations=[waf.CfnWebACL.TextTransformationProperty(priority=0, type="NONE")],
                )
            )
            if path
            else None
        )
        return waf.CfnWebACL.RuleProperty(
            name=name,
            priority=priority,
            action=waf.CfnWebACL.RuleActionProperty(
                block=waf.CfnWebACL.BlockActionProperty(
                    custom_response=waf.CfnWebACL.CustomResponseProperty(
                        response_code=429,
                        custom_response_body_key=_TOO_MANY,
                        response_headers=[
                            waf.CfnWebACL.CustomHTTPHeaderProperty(name="retry-after", value=str(_WINDOW))
                        ],
                    )
                )
            ),
            statement=waf.CfnWebACL.StatementProperty(
                rate_based_statement=waf.CfnWebACL.RateBasedStatementProperty(
                    aggregate_key_type="IP",
                    evaluation_window_sec=_WINDOW,
                    limit=limit,
                    scope_down_statement=scope,
                )
            ),
            visibility_config=_seen(name),
        )

    @staticmethod
    def _managed(priority: int, name: str, only_counted: tuple[str, ...]) -> waf.CfnWebACL.RuleProperty:
        return waf.CfnWebACL.RuleProperty(
            name=name,
            priority=priority,
            override_action=waf.CfnWebACL.OverrideActionProperty(none={}),
            statement=waf.CfnWebACL.StatementProperty(
                managed_rule_group_statement=waf.CfnWebACL.ManagedRuleGroupStatementProperty(
                    vendor_name="AWS",
                    name=name,
                    rule_action_overrides=[
                        waf.CfnWebACL.RuleActionOverrideProperty(
                            name=rule,
                            action_to_use=waf.CfnWebACL.RuleActionProperty(
                                count=waf.CfnWebACL.CountActionProperty()
                            ),
                        )
                        for rule in only_counted
                    ]
                    or None,
                )
            ),
            visibility_config=_seen(name),
        )


def _seen(name: str) -> waf.CfnWebACL.VisibilityConfigProperty:
    return waf.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True,
        metric_name=name,
        sampled_requests_enabled=False,  # a sample has whole requests, tokens included
    )
