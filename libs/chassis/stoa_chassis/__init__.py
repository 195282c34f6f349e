"""The microservice chassis: what every service would otherwise repeat."""

import os

# gRPC's core writes lines of its own to stderr; by default also each connection that a peer closed.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
