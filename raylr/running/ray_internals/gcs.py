"""What the head of a named cluster is asked before Ray connects: whether it lets us in, and its versions."""

import json
import os
import platform
import re

from raylr.errors import ConfigError
from raylr.planning.facts import Features

TIMEOUT_S = 30.0
_NAMESPACE, _METADATA = b"cluster", b"CLUSTER_METADATA"


def check_gcs(address: str, offered: Features) -> None:
    """Raise ConfigError where `address`, HOST:PORT, is no cluster that this driver can use.

    Ray alone would try for half a minute, for minutes where the cluster ends meanwhile, and complain at every try; of other
    versions it would tell in ten lines. Without the feature nothing is asked, and Ray itself finds out.
    """
    if not offered.gcs_calls:
        return
    import grpc  # type: ignore[import-untyped]
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with create_gcs_channel(address) as channel:
        door = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        kept = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)
        try:
            door.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=TIMEOUT_S)
            request = gcs_service_pb2.InternalKVGetRequest(namespace=_NAMESPACE, key=_METADATA)
            metadata = kept.InternalKVGet(request, timeout=TIMEOUT_S).value
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ConfigError(
                    f"address={address} does not take the token; RAY_AUTH_TOKEN_PATH must name the file with the cluster's"
                ) from error
            raise ConfigError(f"address={address} does not answer as a Ray cluster: {error.details()}") from error
    if metadata:
        refuse_other_versions(address, json.loads(metadata))


def refuse_mismatch(address: str, error: Exception) -> None:
    """Raise ConfigError, one line with both versions, where that is what Ray's error of ten lines says."""
    found = re.search(r"cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)", str(error))
    if found:
        refuse_other_versions(address, {"ray_version": found[1], "python_version": found[2]})


def refuse_other_versions(address: str, cluster: dict[str, str]) -> None:
    """Raise ConfigError, one line with both versions, where the cluster's Ray or Python is another than the driver's."""
    import ray

    python, own_python = cluster.get("python_version", ""), platform.python_version()
    same_python = python == own_python
    if os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor":
        same_python = python.split(".")[:2] == own_python.split(".")[:2]
    if cluster.get("ray_version") != ray.__version__ or not same_python:
        raise ConfigError(
            f"address={address} runs Ray {cluster.get('ray_version')} on Python {python}, and this driver has Ray "
            f"{ray.__version__} on Python {own_python}; use the cluster's versions"
        )
