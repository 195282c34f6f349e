"""The microservice chassis: what every service would otherwise repeat."""

import stoa_contracts.grpc_tuning  # noqa: F401  # before anything here imports grpc
