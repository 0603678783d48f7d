"""Owns the few calls that `up` itself makes to the API server, as the administrator, over the host's loopback.
It must not know why an object is wanted; tests use kubectl or a client library instead."""

import http.client
import json
import ssl

from . import pki, settings

FIELD_MANAGER = "easel-cluster"


def request(method: str, path: str, body: object = None, content_type: str = "application/json",
            identity: str = "admin", token: str | None = None) -> tuple[int, bytes]:
    """Status and body. The caller is who the certificate `identity` names, or with a token its holder."""
    context = ssl.create_default_context(cafile=str(pki.certificate("ca")))
    headers = {} if body is None else {"Content-Type": content_type}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    else:
        context.load_cert_chain(pki.certificate(identity), pki.key(identity))
    connection = http.client.HTTPSConnection("127.0.0.1", settings.EXPOSED["api"][0], timeout=10, context=context)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def ready() -> bool:
    """Whether the API server says so itself; a refused connection is a no."""
    try:
        return request("GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def apply(path: str, manifest: dict) -> None:
    """Server-side apply: makes the object or changes it."""
    status, answer = request("PATCH", f"{path}?fieldManager={FIELD_MANAGER}&force=true", manifest, "application/apply-patch+yaml")
    if status not in (200, 201):
        raise RuntimeError(f"failed to apply {path}: {status} {answer.decode(errors='replace')[:500]}")


def node_ready() -> bool:
    status, answer = request("GET", f"/api/v1/nodes/{settings.NODE}")
    if status != 200:
        return False
    conditions = {c["type"]: c["status"] for c in json.loads(answer)["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"
