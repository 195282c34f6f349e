"""What a size carries, estimated by what has been measured elsewhere (docs/performance.md)."""

from __future__ import annotations

from stoa_aws.sizes import Size

# CPU milliseconds of services and edge, without the stores, of an order in which every service listens; and
# of a read.
ORDER_MS = 68
READ_MS = 0.9
READS_PER_ORDER = 30
SIDECARS = 2
"""What proxies beside all of them are taken to cost: as much again. Not measured."""
BUSY = 0.5
"""How busy nodes should be at most: a zone that fails leaves two thirds, and the rest is for peaks."""
CLUSTER_VCPU = 2
"""What the cluster, the mesh and the watching take for themselves."""

_VCPU = {"large": 2, "xlarge": 4, "2xlarge": 8}


def vcpu(size: Size) -> int:
    """The processors of the nodes on an average day."""
    nodes = size.nodes
    return nodes.always * _of(nodes.type) + nodes.usual * _of(nodes.usual_type)


def most_vcpu(size: Size) -> int:
    """The processors of the nodes when Karpenter has added all that it may."""
    return size.nodes.always * _of(size.nodes.type) + size.nodes.limit_vcpu


def orders_per_second(size: Size, processors: int | None = None) -> float:
    """Orders a second, with the reads that come with each, on these processors or those of an average day."""
    free = ((processors or vcpu(size)) - CLUSTER_VCPU) * BUSY * 1000
    return free / ((ORDER_MS + READS_PER_ORDER * READ_MS) * SIDECARS)


def _of(kind: str) -> int:
    return _VCPU[kind.rpartition(".")[2]]
