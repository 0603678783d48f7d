"""Owns how the host asks a component whether it is healthy: over the cable, without a credential.
It must not know which components there are."""

import http.client
import ssl
import urllib.request
from typing import Callable

# The components make their own serving certificates at start; nothing secret is asked or told here.
_UNVERIFIED = ssl._create_unverified_context()
# Without a proxy: whatever the environment says, these addresses are on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_UNVERIFIED))


def answers(url: str) -> Callable[[], bool]:
    """A check that is true while `url` answers 200."""

    def check() -> bool:
        try:
            with _OPENER.open(url, timeout=2) as response:
                return response.status == 200
        except (OSError, http.client.HTTPException):
            return False

    return check
