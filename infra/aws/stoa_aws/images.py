"""The registry: a repository for each image."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from stoa_aws.environment import Environment
from stoa_aws.stack import ShopStack
from stoa_services import SERVICES

OTHER_IMAGES = ("edge", "ops")
"""Those that are not of a service."""


class ImagesStack(ShopStack):
    """Repositories at ECR: a tag is never moved, each image is scanned as it comes, old ones go.

    Images are encrypted by AWS' own key: they are built from what everybody may read.
    """

    def __init__(self, scope: Construct, at: Environment) -> None:
        super().__init__(scope, "images", at)
        self.repositories = {
            image: ecr.Repository(
                self,
                image,
                repository_name=f"{at.repository}/{image}",
                image_tag_mutability=ecr.TagMutability.IMMUTABLE,
                image_scan_on_push=True,
                removal_policy=RemovalPolicy.RETAIN,
                lifecycle_rules=[
                    ecr.LifecycleRule(
                        description="what no tag names",
                        rule_priority=1,
                        tag_status=ecr.TagStatus.UNTAGGED,
                        max_image_age=Duration.days(7),
                    ),
                    ecr.LifecycleRule(
                        description="all but the last fifty, which roll-backs need",
                        rule_priority=2,
                        max_image_count=50,
                    ),
                ],
            )
            for image in (*SERVICES, *OTHER_IMAGES)
        }
