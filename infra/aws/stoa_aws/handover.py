"""What the cluster is told of AWS: values for the shop's chart, and objects that its add-ons read.

Written beside the templates (`kubernetes/`), so that nobody copies a name by hand. What AWS chooses when it
makes something, such as the brokers' addresses, is asked for in docs/aws.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stoa_aws import cache, documents, events, network, postgres, search
from stoa_aws.environment import Environment
from stoa_aws.identities import ACCOUNTS, AUTHORITIES, NAMESPACE, OPERATORS_ACCOUNT, secrets_account
from stoa_services import SERVICES

Object = Mapping[str, Any]

_ROLE = "eks.amazonaws.com/role-arn"
_NETWORK = [{"ipBlock": {"cidr": network.ADDRESSES}}]
_OPERATOR = "operator"  # the Secret of operators' tools, by its name in the charts
# By which the chart's network policies know operators' pods.
_OPERATORS_POD = {"app.kubernetes.io/name": OPERATORS_ACCOUNT, "app.kubernetes.io/part-of": "stoa"}
_PROXIES = 3  # before the edge: CloudFront, the load balancer, the mesh's gateway
# Where charts/environments/production.yaml has the collector of traces: a list replaces the one below it.
_COLLECTOR = "monitoring/collector.monitoring.svc.cluster.local"
_MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
# Of charts/infrastructure; the schema registry is the one that AWS does not run.
_MANAGED = ("postgres", "valkey", "mongo", "opensearch", "kafka", "keycloak", "secrets")


def write(at: Environment, folder: Path) -> None:
    """Write all files into a folder, which may be there."""
    folder.mkdir(parents=True, exist_ok=True)
    files: Mapping[str, Iterable[Object]] = {
        "values.yaml": [values(at)],
        "infrastructure.yaml": [infrastructure()],
        "secrets.yaml": secrets(at),
        "nodes.yaml": nodes(at),
        "gateway.yaml": [gateway(at)],
        "accounts.yaml": [accounts(at)],
    }
    for name, objects in files.items():
        (folder / name).write_text(yaml.dump_all(objects, sort_keys=False, width=110, Dumper=_NoAliases))


def values(at: Environment) -> Object:
    """The values of the chart gen/charts/stoa that follow from where it runs."""
    return {
        "global": {
            "defaults": {
                "image": {"registry": _registry(at)},
                "settings": {"shop_url": f"https://{at.domain}", "group_session_seconds": "3"},
            },
            # Who has a role is told so by STS, at an endpoint within the network.
            "mesh": {"egress": [f"./sts.{at.region}.amazonaws.com", _COLLECTOR]},
            # The load balancer names no host as it connects to the gateway, and is all that reaches it.
            "ingress": {"hosts": ["*"]},
            "network": {
                "egress": [
                    {"ports": [{"port": 443}], "to": _NETWORK},
                    {"ports": [{"port": 4317}], "to": _MONITORING},
                ]
            },
            "infrastructure": {
                "postgres": _outside(postgres.PORT, f"*.{at.region}.rds.amazonaws.com"),
                "mongo": _outside(documents.PORT, f"*.{at.region}.docdb.amazonaws.com"),
                "valkey": _outside(cache.PORT, "*.cache.amazonaws.com"),
                "opensearch": _outside(search.PORT, f"*.{at.region}.es.amazonaws.com", "tls"),
                "kafka": _outside(events.PORT, f"*.kafka.{at.region}.amazonaws.com", "tls"),
                "sts": _outside(443, f"sts.{at.region}.amazonaws.com", "tls"),
                "mail": {
                    "egress": [f"email.{at.region}.amazonaws.com"],
                    "port": 443,
                    "protocol": "tls",
                },
            },
        },
        "edge": {"trustedHops": _PROXIES},
        "ops": {"replication": 3, "serviceAccount": _account(at, OPERATORS_ACCOUNT)},
        **{
            name: {
                "serviceAccount": _account(at, name),
                **({"settings": _mail(at)} if "mail-server" in service.companies else {}),
            }
            for name, service in SERVICES.items()
        },
    }


def infrastructure() -> Object:
    """The values of charts/infrastructure: all is left out that AWS runs."""
    return {"operators": {name: {"enabled": False} for name in _MANAGED}}


def secrets(at: Environment) -> Sequence[Object]:
    """For each service, and for operators, what External Secrets reads for it, as it."""
    wanted = {name: [f"{name}/stores", name, "authorities"] for name in SERVICES}
    wanted[_OPERATOR] = [f"{_OPERATOR}/stores", _OPERATOR, "authorities"]
    wanted[ACCOUNTS] = [ACCOUNTS, "authorities"]
    return [
        each
        for secret, keys in wanted.items()
        for each in _secret(at, secret, OPERATORS_ACCOUNT if secret == _OPERATOR else secret, keys)
    ]


def accounts(at: Environment) -> Object:
    """The Job that makes the accounts at the stores; the operator says the tag of its image ($TAG)."""
    folder = {"name": "accounts", "mountPath": str(Path(AUTHORITIES).parent), "readOnly": True}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "accounts-", "namespace": NAMESPACE},
        "spec": {
            "backoffLimit": 2,
            "ttlSecondsAfterFinished": 86400,
            "template": {
                "metadata": {"labels": {**_OPERATORS_POD, "sidecar.istio.io/inject": "false"}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "accounts",
                            "image": f"{_registry(at)}/ops:$TAG",
                            "args": ["accounts"],
                            "env": [{"name": "STOA_OPS_ACCOUNTS_DIR", "value": folder["mountPath"]}],
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [folder, {"name": "tmp", "mountPath": "/tmp"}],
                        }
                    ],
                    "volumes": [
                        {"name": "accounts", "secret": {"secretName": "accounts", "defaultMode": 0o440}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            },
        },
    }  # fmt: skip


def nodes(at: Environment) -> Sequence[Object]:
    """What Karpenter may choose from."""
    cluster = at.named("cluster")
    return (
        {
            "apiVersion": "karpenter.k8s.aws/v1",
            "kind": "EC2NodeClass",
            "metadata": {"name": "shop"},
            "spec": {
                "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "instanceProfile": at.named("node"),
                "subnetSelectorTerms": [
                    {"tags": {"aws-cdk:subnet-name": network.NODES, "stoa:environment": at.name}}
                ],
                "securityGroupSelectorTerms": [{"tags": {"aws:eks:cluster-name": cluster}}],
                "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
                "blockDeviceMappings": [
                    {
                        "deviceName": "/dev/xvda",
                        "ebs": {"volumeSize": "50Gi", "volumeType": "gp3", "encrypted": True},
                    }
                ],
                "tags": {"stoa:environment": at.name},
            },
        },
        {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodePool",
            "metadata": {"name": "shop"},
            "spec": {
                "template": {
                    "spec": {
                        "nodeClassRef": {
                            "group": "karpenter.k8s.aws",
                            "kind": "EC2NodeClass",
                            "name": "shop",
                        },
                        "requirements": [
                            _one_of("kubernetes.io/arch", "amd64"),
                            _one_of("karpenter.sh/capacity-type", "on-demand"),
                            _one_of("node.kubernetes.io/instance-type", at.size.nodes.usual_type),
                            _one_of("topology.kubernetes.io/zone", *at.zones),
                        ],
                        "expireAfter": "720h",
                    }
                },
                "limits": {"cpu": str(at.size.nodes.limit_vcpu)},
                "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "5m"},
            },
        },
    )


def gateway(at: Environment) -> Object:
    """The pods of the mesh's gateway as the load balancer's targets."""
    return {
        "apiVersion": "elbv2.k8s.aws/v1beta1",
        "kind": "TargetGroupBinding",
        "metadata": {"name": "gateway", "namespace": "istio-system"},
        "spec": {
            "serviceRef": {"name": "istio-ingressgateway", "port": 443},
            "targetGroupName": at.named("gateway"),
            "targetType": "ip",
        },
    }


def _secret(at: Environment, name: str, account: str, keys: Sequence[str]) -> Iterable[Object]:
    reader = secrets_account(account)
    where = {"namespace": NAMESPACE}
    yield {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": reader, **where, **_account(at, account)},
        "automountServiceAccountToken": False,
    }
    yield {
        "apiVersion": "external-secrets.io/v1",
        "kind": "SecretStore",
        "metadata": {"name": reader, **where},
        "spec": {
            "provider": {
                "aws": {
                    "service": "SecretsManager",
                    "region": at.region,
                    "auth": {"jwt": {"serviceAccountRef": {"name": reader}}},
                }
            }
        },
    }
    yield {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": name, **where},
        "spec": {
            "refreshInterval": "1h",
            "secretStoreRef": {"kind": "SecretStore", "name": reader},
            "target": {"name": name},
            "dataFrom": [{"extract": {"key": at.secret(key)}} for key in keys],
        },
    }


def _registry(at: Environment) -> str:
    return f"{at.account}.dkr.ecr.{at.region}.amazonaws.com/{at.repository}"


def _mail(at: Environment) -> Object:
    """By which SES mail goes, and from whom it is; a role may send in the name of the shop's domain alone."""
    return {"email_provider": "ses", "aws_region": at.region, "sender_address": f"shop@{at.domain}"}


def _account(at: Environment, account: str) -> Object:
    return {"annotations": {_ROLE: f"arn:aws:iam::{at.account}:role/{at.named(account)}"}}


def _outside(port: int, host: str, protocol: str = "tcp") -> Object:
    """A server outside of the cluster, which settings and secrets name, and the mesh lets pods call."""
    return {"egress": [host], "port": port, "protocol": protocol, "peers": _NETWORK}


def _one_of(key: str, *options: str) -> Object:
    return {"key": key, "operator": "In", "values": list(options)}


class _NoAliases(yaml.SafeDumper):
    """Writes what is there twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """All of it."""
        return True
