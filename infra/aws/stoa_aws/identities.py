"""Who a service is at AWS: a role that its pods alone take, and the secrets that this role alone reads.

External Secrets reads a service's secrets in its name (a ServiceAccount with the same role), so that nothing
in the cluster may read those of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from aws_cdk import Fn, RemovalPolicy, SecretValue
from aws_cdk import aws_eks_v2 as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stoa_aws import cache, documents, postgres, rights, search
from stoa_aws.accounts import READ_ONLY, REGISTRY, AccountsStack
from stoa_aws.cache import CacheStack
from stoa_aws.documents import DocumentsStack
from stoa_aws.environment import Environment
from stoa_aws.events import EventsStack
from stoa_aws.nag import excuse
from stoa_aws.postgres import PostgresStack
from stoa_aws.search import SearchStack
from stoa_aws.stack import ShopStack
from stoa_contracts.declarations import Service, Store
from stoa_services import SERVICES

NAMESPACE = "stoa"
OPERATORS_ACCOUNT = "ops"
ACCOUNTS = "accounts"
"""Of the Job that makes the accounts at the stores (`stoa accounts`)."""


def secrets_account(account: str) -> str:
    """The ServiceAccount by which External Secrets takes the role of another."""
    return f"{account}-secrets"


AUTHORITIES = "/var/run/stoa/secrets/rds-ca.pem"
"""Where a pod has the authorities that RDS and DocumentDB are signed by, which no system knows."""
OPERATORS_AUTHORITIES = "/var/run/stoa/operator/rds-ca.pem"
"""Where a pod with operators' tools has them."""


class IdentitiesStack(ShopStack):
    """For each service a role, its stores' addresses with its account, and what operators place."""

    def __init__(
        self, scope: Construct, at: Environment, *, cluster: eks.Cluster, key: kms.IKey,
        accounts: AccountsStack, postgres: PostgresStack, documents: DocumentsStack, cache: CacheStack,
        search: SearchStack, events: EventsStack,
    ) -> None:  # fmt: skip
        super().__init__(scope, "identities", at)
        self._key = key
        self._accounts = accounts
        self._addresses = _Addresses(postgres, documents, cache, search)
        self._issuer = Fn.select(1, Fn.split("//", cluster.cluster_open_id_connect_issuer_url))
        self._provider = iam.CfnOIDCProvider(
            self,
            "provider",
            url=cluster.cluster_open_id_connect_issuer_url,
            client_id_list=["sts.amazonaws.com"],
        )
        self._authorities = self._placed("authorities", "the authorities of RDS, which AWS renews rarely")
        for service in SERVICES.values():
            secrets = [self._authorities, *self._secrets(service)]
            self._role(
                service.name,
                [
                    *self._may_read(secrets),
                    *events.statements(rights.of(service)),
                    *self._may_ask(service),
                ],
            )
        self._role(ACCOUNTS, self._may_read([self._authorities, self._all_accounts(accounts.of_search)]))
        self._role(
            OPERATORS_ACCOUNT,
            [*self._may_read([self._authorities, *self._operator()]), *events.statements(rights.OPERATORS)],
        )

    def _all_accounts(self, search_master: secretsmanager.ISecret) -> secretsmanager.Secret:
        """What `stoa accounts` is told: every account by its URL, and who may make it."""
        urls = dict(self._addresses.masters(search_master))
        for service in SERVICES.values():
            for store in service.stores:
                if store is not Store.REDIS:  # whose users are made here (cache.py)
                    account = self._accounts.of_services[service.name]
                    url = self._addresses.url(service, store, service.name, account)
                    urls[f"{service.name}_{_SETTINGS[store]}"] = url
            if service.store not in (None, Store.REDIS):
                account = self._accounts.of_operators
                urls[f"reader_{service.name}_url"] = self._addresses.url(
                    service, service.store, READ_ONLY, account
                )
        urls[f"{REGISTRY}_url"] = self._addresses.registry(self._accounts.of_registry)
        return self._composed(ACCOUNTS, urls)

    def _secrets(self, service: Service) -> Sequence[secretsmanager.Secret]:
        """Two of each, whatever they hold: what is made here, and what operators place."""
        stores = (
            self._addresses.of(service, self._accounts.of_services[service.name]) if service.stores else {}
        )
        return (
            self._composed(f"{service.name}/stores", stores),
            self._placed(service.name, "what companies outside have given us, which they renew"),
        )

    def _operator(self) -> Sequence[secretsmanager.Secret]:
        """What operators' tools are told: services, stores by the account that reads, and what they place."""
        urls = {f"{name}_metrics_url": f"http://{name}.{NAMESPACE}:9100/metrics" for name in SERVICES}
        for service in SERVICES.values():
            if service.store is not None:
                account = self._accounts.of_operators
                url = self._addresses.url(service, service.store, READ_ONLY, account)
                urls[f"{service.name}_url"] = url.replace(AUTHORITIES, OPERATORS_AUTHORITIES)
        return self._composed("operator/stores", urls), self._placed(
            "operator", "where brokers and companies are, and what these have given us"
        )

    def _composed(self, name: str, values: Mapping[str, str]) -> secretsmanager.Secret:
        """A secret that CloudFormation puts together, and renews when an address or an account changes."""
        secret = secretsmanager.Secret(
            self,
            name.replace("/", "-"),
            secret_name=self._at.secret(name),
            encryption_key=self._key,
            secret_object_value={key: SecretValue.unsafe_plain_text(value) for key, value in values.items()},
        )
        excuse(secret, "SMG4", "it is made of an account's secret, and follows it at the next deployment")
        return secret

    def _placed(self, name: str, why: str) -> secretsmanager.Secret:
        """A secret that is empty until an operator places its values, which no deployment overwrites."""
        secret = secretsmanager.Secret(
            self,
            f"{name}-placed",
            secret_name=self._at.secret(name),
            encryption_key=self._key,
            secret_object_value={},
            removal_policy=RemovalPolicy.RETAIN,
        )
        excuse(secret, "SMG4", why)
        return secret

    def _role(self, account: str, statements: Sequence[iam.PolicyStatement]) -> iam.CfnRole:
        # The issuer is known only when the cluster is, and stands in the keys of the conditions: so it is a
        # text.
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Federated": "${provider}"},
                    "Action": "sts:AssumeRoleWithWebIdentity",
                    "Condition": {
                        "StringEquals": {
                            "${issuer}:aud": "sts.amazonaws.com",
                            "${issuer}:sub": [
                                f"system:serviceaccount:{NAMESPACE}:{name}"
                                for name in (account, secrets_account(account))
                            ],
                        }
                    },
                }
            ],
        }
        role = iam.CfnRole(
            self,
            f"role-{account}",
            role_name=self._at.named(account),
            description=f"Pods of {NAMESPACE}/{account}",
            assume_role_policy_document=Fn.sub(
                json.dumps(trust), {"provider": self._provider.attr_arn, "issuer": self._issuer}
            ),
            policies=[
                iam.CfnRole.PolicyProperty(
                    policy_name="own", policy_document=iam.PolicyDocument(statements=list(statements))
                )
            ],
        )
        if account == OPERATORS_ACCOUNT:
            excuse(
                role,
                "IAM5",
                "who looks after the shop makes and reads all its topics",
                of=[
                    f"Resource::{resource}"
                    for statement in statements
                    for resource in statement.resources
                    if resource.endswith("*")
                ],
            )
        return role

    def _may_read(self, secrets: Sequence[secretsmanager.Secret]) -> Sequence[iam.PolicyStatement]:
        arns = [secret.secret_arn for secret in secrets]
        return (
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], resources=arns
            ),
            iam.PolicyStatement(
                actions=["kms:Decrypt"],
                resources=[self._key.key_arn],
                conditions={"StringEquals": {"kms:EncryptionContext:SecretARN": arns}},
            ),
        )

    def _may_ask(self, service: Service) -> Sequence[iam.PolicyStatement]:
        """What the companies that a service calls are at AWS."""
        if "mail-server" not in service.companies:
            return ()
        return (
            iam.PolicyStatement(
                actions=["ses:SendEmail"],
                resources=[f"arn:aws:ses:{self._at.region}:{self._at.account}:identity/{self._at.domain}"],
            ),
            # A text message has no resource; what has one is a topic, to which nothing of ours is said.
            iam.PolicyStatement(actions=["sns:Publish"], not_resources=["arn:aws:sns:*:*:*"]),
        )


class _Addresses:
    """Where each store is, as the URL that the chassis takes."""

    def __init__(
        self, postgres: PostgresStack, documents: DocumentsStack, cache: CacheStack, search: SearchStack
    ) -> None:
        self._postgres = postgres
        self._documents = documents
        self._cache = cache
        self._search = search
        self._urls: Mapping[Store, Callable[[str, str], str]] = {
            Store.POSTGRES: self._postgres_url,
            Store.MONGO: self._documents_url,
            Store.REDIS: self._cache_url,
            Store.OPENSEARCH: self._search_url,
        }

    def of(self, service: Service, account: secretsmanager.ISecret) -> Mapping[str, str]:
        """The files of a service's stores, by name, and of a replica that it may read from."""
        urls = {
            f"stoa_{_SETTINGS[store]}": self.url(service, store, service.name, account)
            for store in service.stores
        }
        if Store.POSTGRES in service.stores:
            for replica in self._postgres.instance_of(service.name).replicas[:1]:
                host = replica.db_instance_endpoint_address
                user = f"{service.name}:{_password(account)}"
                urls["stoa_database_replica_url"] = _postgres_url(user, host, service.name)
        return urls

    def masters(self, search_master: secretsmanager.ISecret) -> Mapping[str, str]:
        """Who may make accounts, by the files that `stoa accounts` reads."""
        urls = {}
        for name, instance in self._postgres.instances.items():
            user = f"{postgres.MASTER}:{_password(instance.primary.secret)}"
            host = instance.primary.db_instance_endpoint_address
            urls[f"master_postgres_{name}_url"] = _postgres_url(user, host, "postgres")
        user = f"{documents.MASTER}:{_password(self._documents.cluster.secret)}"
        urls["master_documents_url"] = self._documents_url("", user)
        user = (
            f"{search_master.secret_value_from_json('username').unsafe_unwrap()}:{_password(search_master)}"
        )
        urls["master_search_url"] = self._search_url("", user)
        return urls

    def url(self, service: Service, store: Store, user: str, account: secretsmanager.ISecret) -> str:
        """The URL of a service's store, with a user and the password of its account."""
        return self._urls[store](service.name, f"{user}:{_password(account)}")

    def registry(self, account: secretsmanager.ISecret) -> str:
        """The URL of the schema registry's database."""
        host = self._postgres.first.primary.db_instance_endpoint_address
        return _postgres_url(f"{REGISTRY}:{_password(account)}", host, REGISTRY)

    def _postgres_url(self, service: str, account: str) -> str:
        host = self._postgres.instance_of(service).primary.db_instance_endpoint_address
        return _postgres_url(account, host, service)

    def _documents_url(self, service: str, account: str) -> str:
        host = self._documents.cluster.cluster_endpoint.hostname
        # DocumentDB repeats no write by itself.
        return (
            f"mongodb://{account}@{host}:{documents.PORT}/{service}?tls=true&tlsCAFile={AUTHORITIES}"
            "&authSource=admin&replicaSet=rs0&w=majority&retryWrites=false"
        )

    def _cache_url(self, service: str, account: str) -> str:
        return f"rediss://{account}@{self._cache.group.attr_primary_end_point_address}:{cache.PORT}"

    def _search_url(self, service: str, account: str) -> str:
        return f"https://{account}@{self._search.domain.attr_domain_endpoint}:{search.PORT}"


def _postgres_url(account: str, host: str, database: str) -> str:
    return (
        f"postgresql://{account}@{host}:{postgres.PORT}/{database}"
        f"?sslmode=verify-full&sslrootcert={AUTHORITIES}"
    )


def _password(account: secretsmanager.ISecret | None) -> str:
    if account is None:
        raise ValueError("a server has no secret for its master")
    return account.secret_value_from_json("password").unsafe_unwrap()


_SETTINGS: Mapping[Store, str] = {
    Store.POSTGRES: "database_url",
    Store.MONGO: "mongo_url",
    Store.REDIS: "redis_url",
    Store.OPENSEARCH: "opensearch_url",
}
"""The setting by which a service finds each store (stoa_chassis.settings)."""
