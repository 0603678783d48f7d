"""Owns requests to the gateway as a client sends them, with nothing but the standard library.
It must not know Kubernetes."""

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> dict:
        """The OpenAI error; fails unless the envelope is exactly that."""
        body = self.json()
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
        return body["error"]

    def pictures(self) -> list[bytes]:
        return [base64.b64decode(image["b64_json"]) for image in self.json()["data"]]


def call(url: str, body: bytes | None = None, content_type: str = "application/json", timeout: float = 150,
         method: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    if body is not None:
        request.add_header("content-type", content_type)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def draw(gateway: str, timeout: float = 150, headers: dict[str, str] | None = None, **fields) -> Answer:
    return call(f"{gateway}/v1/images/generations", json.dumps(fields).encode(), timeout=timeout, headers=headers)
