"""Owns putting objects into the S3 server with signed requests (AWS Signature Version 4), with the standard library alone.
It must not know what an object means."""

import datetime
import hashlib
import hmac
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from stores import credentials, places

REGION = "us-east-1"


def put_folder(folder: Path, bucket: str, prefix: str) -> None:
    put(f"/{bucket}", b"")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        put(f"/{bucket}/{prefix}/{path.relative_to(folder)}", path.read_bytes())


def put(path: str, body: bytes) -> None:
    path = urllib.parse.quote(path)
    request = urllib.request.Request(places.HOST_S3 + path, data=body, method="PUT", headers=_signed("PUT", path, body))
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # the bucket is there already
            raise AssertionError(f"PUT {path}: {error.code} {error.read()[:500]!r}") from error


def _signed(method: str, path: str, body: bytes) -> dict[str, str]:
    known, now = credentials.read(), datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {"host": urllib.parse.urlsplit(places.HOST_S3).netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
    names = ";".join(sorted(signed))
    canonical = "\n".join([method, path, "", *(f"{name}:{signed[name]}" for name in sorted(signed)), "", names, digest])
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{known.secret_access_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"AWS4-HMAC-SHA256 Credential={known.access_key_id}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**signed, "authorization": credential}
