"""What the mesh has to be told when it is installed, beside what the charts say to it."""

from __future__ import annotations

from stoa_cluster.kubernetes import Cluster

_FETCH_KEYS = ("PILOT_JWT_ENABLE_REMOTE_JWKS", "hybrid")


async def proxies_fetch_keys() -> bool:
    """Have the proxies fetch the keys of the shop's tokens from its edge; returns whether they did not yet.

    Only they have a certificate that the edge asks for, and they do it anew when the keys could not be had.
    """
    mesh = Cluster("istio-system")
    container = (await mesh.get("deployment", "istiod"))["spec"]["template"]["spec"]["containers"][0]
    if _FETCH_KEYS in {(each["name"], each.get("value")) for each in container.get("env", ())}:
        return False
    await mesh.kubectl("set", "env", "deployment/istiod", "=".join(_FETCH_KEYS))
    await mesh.rolled_out("istiod")
    return True
