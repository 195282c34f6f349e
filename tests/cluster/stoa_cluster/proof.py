"""All stages, in the order in which they are run."""

from __future__ import annotations

from stoa_cluster import broken, canary, certificates, e2e, identities, install, migration, rolling, scaling
from stoa_cluster.stages import Stage

STAGES = (
    Stage(
        "install",
        "the charts install the whole shop, and every pod is ready with its sidecar",
        install.everything,
    ),
    Stage("e2e", "the end-to-end tests pass through the ingress", e2e.the_shop_does_all_that_it_does_at_home),
    Stage(
        "matrix",
        "every identity's call of every method is decided by the mesh as by the chassis at home",
        identities.every_identity_calls_everything,
    ),
    Stage(
        "stolen",
        "an admin's token in other hands than the edge's opens nothing",
        identities.a_stolen_token_makes_no_caller,
    ),
    Stage(
        "elsewhere",
        "identities of the same names in another namespace may call nothing",
        identities.identities_of_other_namespaces_are_refused,
    ),
    Stage(
        "plaintext",
        "what comes without a certificate of the mesh is not heard",
        identities.plaintext_is_refused,
    ),
    Stage("rolling", "an update of every service costs no order", rolling.every_service_is_rolled),
    Stage("kill", "the loss of any one pod costs no order", rolling.any_pod_is_killed),
    Stage("hpa", "pods are added under load, and removed after it", scaling.pods_follow_the_load),
    Stage(
        "broken",
        "a release that is never ready leaves the one before it serving",
        broken.a_release_that_is_never_ready_replaces_nothing,
    ),
    Stage(
        "canary",
        "a new version of the catalogue is promoted if it answers well, and taken back if not",
        canary.a_version_is_judged_by_what_it_answers,
    ),
    Stage(
        "rotate",
        "certificates are renewed under load, and no request fails of it",
        certificates.certificates_are_renewed,
    ),
    Stage(
        "migrate",
        "a database is changed, there and back, while old and new versions use it",
        migration.old_and_new_share_a_database,
    ),
)
