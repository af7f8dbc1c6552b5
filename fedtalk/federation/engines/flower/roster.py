"""The server's data module: names of the sites' clients, and not a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedtalk.data.source import ClipData, ClipSource
from fedtalk.errors import ConfigurationError


class SiteClients(ClipData):
    """Who takes part, by site. Clips stay where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.site_of: dict[str, str] = {}
        """Each client's site, clients in ascending order."""

    def enter(self, clients_of: Mapping[str, Sequence[str]]) -> None:
        """Take down the clients of each site.

        Raises:
            ConfigurationError: two sites have a client of the same name.
        """
        site_of: dict[str, str] = {}
        for site, clients in clients_of.items():
            for client in clients:
                if client in site_of:
                    raise ConfigurationError(
                        f"client {client!r}: expected at one site, got at {site_of[client]} and at {site}. Give the folders of "
                        "different people different names, and one person's to one site only."
                    )
                site_of[client] = site
        self.site_of = dict(sorted(site_of.items()))

    @property
    def clients(self) -> list[str]:
        return list(self.site_of)

    def training_clips(self, client: str) -> Sequence[ClipSource]:
        return []

    def held_out_clips(self, client: str) -> Sequence[ClipSource]:
        return []
