"""Where an operator's tools find the shop: addresses, and accounts that may read and change nothing.

Each setting is a file in the folder `STOA_OPS_DIR`, named like the setting (`kafka_bootstrap`), or a variable
of the environment, which wins (`STOA_OPS_KAFKA_BOOTSTRAP`). `stoa up` writes the files of a shop on this
machine to `operator/` in its state folder, where they are found if STOA_OPS_DIR is not set. A Job in a
cluster gets the same files mounted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from stoa_ops import local
from stoa_services import SERVICES

_PREFIX = "STOA_OPS_"


class SettingsMissing(Exception):
    """Some settings are not there; the message names them, and where they are looked for."""


class OperatorSettings(BaseSettings):
    """What the tools are told.

    Beside the fields below there are two for each service: `<name>_url`, its store with an account that may
    only read, and `<name>_metrics_url`, where one of its processes serves its metrics.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", hide_input_in_errors=True)

    kafka_bootstrap: str = Field(repr=False)
    schema_registry_url: str
    # The ledgers of companies, and the pages of a mail server, that show what they got. Real ones have none:
    # where an address is empty, nothing is compared.
    payment_gateway_url: str = ""
    payment_gateway_api_key: str = Field(default="", repr=False)
    carriers_url: str = ""
    carriers_api_key: str = Field(default="", repr=False)
    mail_server_url: str = ""

    @classmethod
    def load(cls, folder: Path | None = None) -> OperatorSettings:
        """Read the settings: the files from `folder`, or from where they are unless said otherwise.

        Raises SettingsMissing.
        """
        folder = folder or _folder()
        there = folder if folder is not None and folder.is_dir() else None
        complete: type[OperatorSettings] = create_model(
            cls.__name__, __base__=cls, __module__=__name__, **_of_services()
        )
        try:
            return complete(_secrets_dir=there)  # type: ignore[call-arg]  # the rest is found
        except ValidationError as error:
            missing = ", ".join(str(each["loc"][0]) for each in error.errors())
            place = f"Files in {folder}" if folder else f"Files in the folder {_PREFIX}DIR"
            raise SettingsMissing(
                f"These settings are missing: {missing}. {place} or variables {_PREFIX}… set them; "
                "`stoa up` writes the files of a shop on this machine."
            ) from error

    def store_url(self, service: str) -> str:
        """The store of a service, with an account that may only read."""
        return str(getattr(self, f"{service}_url"))

    def metrics_url(self, service: str) -> str:
        """Where a service serves its metrics."""
        return str(getattr(self, f"{service}_metrics_url"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Name the files without the prefix that variables have."""
        folder = getattr(file_secret_settings, "secrets_dir", None)
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, folder, env_prefix="")


def _folder() -> Path | None:
    if named := os.environ.get(f"{_PREFIX}DIR"):
        return Path(named)
    return local.operator_folder()


def _of_services() -> dict[str, Any]:
    stores = {f"{service.name}_url" for service in SERVICES.values() if service.store is not None}
    metrics = {f"{name}_metrics_url" for name in SERVICES}
    return {name: (str, Field(repr=False)) for name in sorted(stores | metrics)}
