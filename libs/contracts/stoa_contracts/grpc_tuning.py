"""What gRPC reads from the environment while it is imported; the stubs and the chassis import this before it.

Whoever starts a process can still set the variables otherwise.
"""

import os

# gRPC's event engine, the default in Python since 1.80, hands each read and write on to a pool of threads.
# What it replaced leaves them to the thread that waits for gRPC's events anyway: half the context switches,
# and a tenth to a quarter less CPU for a call. A gRPC that offers no choice any more says so at start and
# goes on.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
# gRPC's core writes lines of its own to stderr; by default also each connection that a peer closed.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
