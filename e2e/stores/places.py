"""Owns the names, ports and folders of the stores, as pods and as the host see them.
It must not start, read or write anything."""

from onenode import settings

NAMESPACE = "stores"
STATE = settings.STATE / "stores"  # credentials, the authority's key; gone after `make down`
DATA = settings.VAR / "stores"  # on the node: what the registry and the S3 server keep, and what tests spoil
REGISTRY_DATA, S3_DATA, CONTROL = DATA / "registry", DATA / "s3", DATA / "control"
AUTHORITY = STATE / "ca.crt"
CREDENTIALS = STATE / "credentials.json"
DOCKER_CONFIG = STATE / "docker"

REGISTRY_HOST = f"registry.{NAMESPACE}.svc.{settings.DNS_DOMAIN}"
REGISTRY = f"{REGISTRY_HOST}:5000"  # TLS by the stores' own authority
SLOW = f"{REGISTRY_HOST}:5001"  # the same, at most as many bytes a second as CONTROL/rate says
PLAIN = f"{REGISTRY_HOST}:5080"  # the same, without TLS
S3 = f"http://s3.{NAMESPACE}.svc.{settings.DNS_DOMAIN}:9000"

# The same servers from the host, through the cluster's one table of ports.
HOST_REGISTRY = f"127.0.0.1:{settings.EXPOSED['registry'][0]}"
HOST_S3 = f"http://127.0.0.1:{settings.EXPOSED['s3'][0]}"
NODE_PORTS = {"registry": settings.EXPOSED["registry"][1], "slow": 30501, "plain": 30502, "s3": settings.EXPOSED["s3"][1]}
# Without the relay between, for figures.
DIRECT_PLAIN = f"{settings.LINK_ADDRESS}:{NODE_PORTS['plain']}"
