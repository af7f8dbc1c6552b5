"""Rules of aggregation to compare with: equal weights, weights by an oracle, and rules that look at single updates.

The latter need every client's update in the clear, which is what secure aggregation and the sealing of a round exist to
prevent: they run without privacy only, for comparison.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor

from fedtalk.callbacks.aggregation import Aggregation, Standing
from fedtalk.errors import ConfigurationError
from fedtalk.federation.scaffold import ScaffoldServer
from fedtalk.federation.server import ServerOptimizer


class Uniform(Aggregation):
    """All clients count the same, however many clips they have."""

    def weight(self, standing: Standing) -> float:
        return 1.0


class Oracle(Aggregation):
    """Faulty clients count nothing: an upper bound for any rule that weighs by reliability.

    It reads the data's own list of the clients that it has made faulty (`ClipData.unreliable_clients`), which real data don't
    have.
    """

    def __init__(self, most_clips: int = 8, server_optimizer: ServerOptimizer | None = None) -> None:
        """
        Args:
            most_clips: clips beyond this number do not add weight.
            server_optimizer: what the server does with the mean update; SGD with rate 1 (averaging) by default.
        """
        super().__init__(server_optimizer)
        if not 1 <= most_clips <= 100_000:
            raise ConfigurationError(f"aggregation.most_clips: expected 1 to 100000, got {most_clips}")
        self.most_clips = most_clips

    def weight(self, standing: Standing) -> float:
        return 0.0 if standing.faulty else min(standing.clips, self.most_clips) / self.most_clips


class Scaffold(Aggregation):
    """SCAFFOLD (Karimireddy et al. 2020): clients' steps are corrected by how their gradients differ from everybody's, so that
    many of them don't lead to where each client would go alone. All count the same. Clients take plain SGD steps
    (``placement.optimizer: sgd``), in this process and without privacy.
    """

    controls = True

    def weight(self, standing: Standing) -> float:
        return 1.0

    def build_server(self, state: dict[str, Tensor], clients: int = 1) -> ScaffoldServer:
        return ScaffoldServer(state, self.server_optimizer, clients)


class Robust(Aggregation):
    """A rule that puts one update in the place of many; all clients count the same. Not with privacy: it sees every update."""

    sees_updates = True

    def weight(self, standing: Standing) -> float:
        return 1.0

    @abstractmethod
    def combined(self, updates_KD: np.ndarray) -> np.ndarray:
        """
        Args:
            updates_KD: (K, d) float64, one client's update a row, K at least 1.

        Returns:
            (d,) float64.
        """


class Median(Robust):
    """The median of every coordinate (Yin et al. 2018, definition 1)."""

    def combined(self, updates_KD: np.ndarray) -> np.ndarray:
        return np.median(updates_KD, axis=0)


class TrimmedMean(Robust):
    """The mean of every coordinate without its largest and its smallest values (Yin et al. 2018, definition 2)."""

    def __init__(self, share: float = 0.3, server_optimizer: ServerOptimizer | None = None) -> None:
        """
        Args:
            share: of the values, left out at each end; below 0.5. Rounded down to whole clients.
            server_optimizer: what the server does with the update; SGD with rate 1 by default.
        """
        super().__init__(server_optimizer)
        if not 0 <= share < 0.5:
            raise ConfigurationError(f"aggregation.share: expected a share from 0 to below 0.5, got {share}")
        self.share = share

    def combined(self, updates_KD: np.ndarray) -> np.ndarray:
        cut = int(self.share * len(updates_KD) + 1e-9)
        return np.sort(updates_KD, axis=0)[cut : len(updates_KD) - cut].mean(axis=0)


class Krum(Robust):
    """The mean of those updates that lie nearest to others (Blanchard et al. 2017: Krum, and multi-Krum for several).

    An update's score is the sum of its squared distances to its K - f - 2 nearest others; those with the lowest are taken.
    """

    def __init__(self, faulty: float = 0.3, kept: int = 1, server_optimizer: ServerOptimizer | None = None) -> None:
        """
        Args:
            faulty: share of the clients that may be faulty, f = floor(faulty K); below 0.5.
            kept: updates of which the mean is taken, as far as there are so many; 1 is Krum.
            server_optimizer: what the server does with the update; SGD with rate 1 by default.
        """
        super().__init__(server_optimizer)
        if not 0 <= faulty < 0.5:
            raise ConfigurationError(f"aggregation.faulty: expected a share from 0 to below 0.5, got {faulty}")
        if kept < 1:
            raise ConfigurationError(f"aggregation.kept: expected at least 1, got {kept}")
        self.faulty, self.kept = faulty, kept

    def combined(self, updates_KD: np.ndarray) -> np.ndarray:
        count = len(updates_KD)
        products = updates_KD @ updates_KD.T
        squares = np.diag(products)
        distances = np.maximum(squares[:, None] + squares[None] - 2 * products, 0)
        np.fill_diagonal(distances, np.inf)
        near = max(1, count - int(self.faulty * count + 1e-9) - 2)
        scores = np.sort(distances, axis=1)[:, :near].sum(axis=1) if count > 1 else np.zeros(1)
        return updates_KD[np.argsort(scores, kind="stable")[: self.kept]].mean(axis=0)
