"""What `fedtalk flower server` and `client` are told besides the config: ``flower:`` of a site's own overlay."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedtalk.errors import ConfigurationError


@dataclass
class ServerSettings:
    """The server's side of Flower."""

    certificate: str
    """The server's certificate, PEM."""
    private_key: str
    """Its private key, PEM."""
    signing_key: str
    """The server's own key, in OpenSSH's format, with which it signs what it asks sites for; they have the public one."""
    sites: list[str]
    """Public keys of the sites, a file each in OpenSSH's format; its name up to ``.pub`` or ``.key.pub`` names the site."""
    host: str = "0.0.0.0"
    """Address to listen at."""
    port: int = 9092
    """Port to listen at: all that sites need to reach."""
    most_clients: dict[str, int] = field(default_factory=dict)
    """By site, the most clients that it may name, as agreed with it; without, a site is bound by ``privacy.assumptions``."""
    least_sites: int | None = None
    """Sites that must be connected before the first round; all of ``sites`` by default. Later ones take no part."""
    wait_seconds: float = 600.0
    """How long to wait for them."""
    training_seconds: float = 3600.0
    """Time a site has for training its clients of a round; after that they have dropped out."""
    answer_seconds: float = 120.0
    """Time a site has for each of the other answers."""

    def __post_init__(self) -> None:
        _check_port("port", self.port)
        for name in ("wait_seconds", "training_seconds", "answer_seconds"):
            _check_seconds(name, getattr(self, name))
        if not self.sites:
            raise ConfigurationError("flower.sites: expected the public keys of the sites, got none")
        if self.least_sites is not None and not 1 <= self.least_sites <= len(self.sites):
            raise ConfigurationError(
                f"flower.least_sites: expected 1 to the number of sites, {len(self.sites)}, got {self.least_sites}"
            )


@dataclass
class ClientSettings:
    """A site's side of Flower."""

    superlink: str
    """The server's ``host:port``."""
    authority: str
    """Certificate of the authority that signed the server's, PEM."""
    server: str
    """The server's public key, in OpenSSH's format: nothing is done that it hasn't signed."""
    private_key: str
    """This site's private key, in OpenSSH's format, with which it signs its answers; the server has the public one."""
    ledger: str | None = None
    """Folder of the ledger of what this site's people have given, over all runs and servers; in the home folder, by the name of
    the site's key, by default."""
    rounds_budget: int | None = None
    """Rounds in which a person may take part, over all runs and servers; by default those agreed on and 3 more, for rounds that
    a server which was started again takes a second time."""
    epsilon_budget: float | None = None
    """Epsilon that a person may spend against whoever sees released adapters, over all runs and servers; the budget in the
    config's privacy by default."""
    port: int = 9094
    """A free port on 127.0.0.1, by which the SuperNode hands over what it receives; two sites on a machine need two."""
    wait_seconds: float = 600.0
    """How long to go on trying where the server can't be reached or doesn't know this site's key."""

    def __post_init__(self) -> None:
        host, _, port = self.superlink.rpartition(":")
        if not host or not port.isdigit() or "/" in host:
            raise ConfigurationError(
                f"flower.superlink: expected host:port, such as fed.example.org:9092, got {self.superlink!r}"
            )
        _check_port("port", self.port)
        _check_seconds("wait_seconds", self.wait_seconds)
        for name in ("rounds_budget", "epsilon_budget"):
            budget = getattr(self, name)
            if budget is not None and not budget >= 0:
                raise ConfigurationError(f"flower.{name}: expected 0 or more, got {budget}")


def _check_port(name: str, value: int) -> None:
    if not 1 <= value <= 65535:
        raise ConfigurationError(f"flower.{name}: expected a port, 1 to 65535, got {value}")


def _check_seconds(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"flower.{name}: expected seconds above 0, got {value}")
