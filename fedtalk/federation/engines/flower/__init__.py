"""Across organisations: the round of `fedtalk.federation` carried by Flower's SuperLink and SuperNodes.

    `server` FlowerEngine --messages--> GridTransport == SuperLink ==TLS== SuperNode -- `worker` --messages--> Site

`messages`, `signing`, `agreement`, `site` and `engine` know nothing of Flower: bytes in, bytes out. `grid`, `superlink` and
`supernode` import it, and what Flower doesn't document is in `flwr_internals` alone. Each site is one long-lived process that
holds its model, its clips and its clients' secrets, and works off what its SuperNode receives. Flower's app bundle carries no
code: nothing that comes over the wire is run at a site, and a message costs no process start and no copy of the backbone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from urllib.request import getproxies_environment, proxy_bypass

from fedtalk.errors import ConfigurationError

FLOWER_ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Flower reports to its makers and asks them for updates unless told not to; a value from outside is respected."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def require_flower() -> None:
    """Make sure that Flower can be imported, and that it talks to nobody but its own parties.

    Raises:
        ConfigurationError: it isn't installed, or Python is too old for it.
    """
    if sys.version_info < (3, 11):
        raise ConfigurationError(
            f"Flower needs Python 3.11 or newer, got {sys.version_info.major}.{sys.version_info.minor}. Make the environment "
            "with a newer interpreter; within one organisation `fedtalk fit` needs no Flower."
        )
    if importlib.util.find_spec("flwr") is None:
        raise ConfigurationError(
            'runs across organisations need Flower, which is not installed: pip install "fedtalk[flower]"'
        )
    for name, value in FLOWER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    spare_loopback()


def spare_loopback() -> None:
    """See to it that this process and its children never ask a proxy for this machine itself."""
    for name in ("no_proxy", "NO_PROXY"):
        named = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in named:
            os.environ[name] = ",".join(dict.fromkeys([*named, *LOOPBACK]))


def proxy_variable(host: str) -> str | None:
    """The environment's variable that sends what is meant for ``host`` to a proxy by TLS, if there is one."""
    proxies = getproxies_environment()
    scheme = next((scheme for scheme in ("https", "all") if proxies.get(scheme)), None)
    if scheme is None or proxy_bypass(host):
        return None
    return next(name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name])
