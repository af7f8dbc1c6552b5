"""Secure aggregation: the server learns the sum of the clients' vectors, and of no smaller set of them.

The protocol of Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS 2017), on
the sparse graph of Bell et al. (CCS 2020, "SecAgg+"). Vectors live in the integers modulo 2**bits; `fixed_point` brings
real ones there, and `words` puts several coordinates into one machine word, to which the masks are added. A round has four
exchanges:

1. keys: each client sends two fresh X25519 public keys;
2. shares: the server draws a graph over those who answered; each client shares the secret of its mask key and the seed
   of its own mask among its neighbours (Shamir, encrypted end to end through the server);
3. input: each client sends its vector plus its own mask plus or minus one mask for each of its nearest neighbours that shared;
4. reveal: for each neighbour, a survivor reveals one share: of the seed if the neighbour's vector arrived, of the mask
   key if it did not. The server opens and subtracts the masks that are left in the sum.

**What it holds against.** A server that follows the protocol but wants to learn from what it sees, pooled with up to
``colluding_fraction`` of the cohort, chosen before the graph was drawn; while up to ``dropout_fraction`` vanish, at any
stage, for reasons that don't depend on the graph. Such an adversary learns the sum over the honest survivors, except
with the probability that `choose_graph` states (2**-security_bits a round) or by breaking X25519, HKDF-SHA256, AES-256
or ChaCha20-Poly1305. The server releases the exact sum, which has to lie in the ring's signed range (`words`), or no sum
(`AbortedRound`).

**Refused besides**, as defence in depth: a client answers each step once and each round once, and refuses garbage,
foreign or replayed sessions and rounds, other settings, forged or repeated ids, reused or degenerate keys, rosters
without itself, lists that contradict each other, too few survivors, and both kinds of share for one peer.

**What it does not hold against.**

- A server that deviates. Keys aren't signed by identities that clients know: the server could put its own in their
  place, invent clients, show clients different lists of survivors, or choose the graph. Run it over authenticated
  transport, by an operator who is trusted to follow the protocol.
- What the sum itself says. Of few clients, or of two cohorts that differ in one client, sums say much about a single
  one: that is the business of differential privacy, and of ``least_survivors``.
- Wrong vectors. A client may send any ring element, whatever its norm; nothing proves that it clipped.
- Clients that deviate to do harm: wrong shares cost at most the round, never a wrong sum, but the rounds of a cohort
  can be spoilt.
- Who takes part, when, and in which rounds; and side channels of the Python process: secrets are not wiped from memory.
"""

from __future__ import annotations

from fedtalk.privacy.secagg.client import Advertised, Enrolled, Shared, Submitted
from fedtalk.privacy.secagg.driver import RoundReport, Stage, run_round
from fedtalk.privacy.secagg.errors import (
    AbortedRound,
    InvalidInput,
    MalformedMessage,
    RefusedMessage,
    SecureAggregationError,
)
from fedtalk.privacy.secagg.graph import Assumptions, GraphChoice, choose_graph
from fedtalk.privacy.secagg.ring import Ring
from fedtalk.privacy.secagg.server import CollectingInputs, CollectingKeys, CollectingShares
from fedtalk.privacy.secagg.settings import AggregationSettings
from fedtalk.privacy.secagg.unmasking import AggregateSum, CollectingReveals

__all__ = [
    "AbortedRound",
    "Advertised",
    "AggregateSum",
    "AggregationSettings",
    "Assumptions",
    "CollectingInputs",
    "CollectingKeys",
    "CollectingReveals",
    "CollectingShares",
    "Enrolled",
    "GraphChoice",
    "InvalidInput",
    "MalformedMessage",
    "RefusedMessage",
    "Ring",
    "RoundReport",
    "SecureAggregationError",
    "Shared",
    "Stage",
    "Submitted",
    "choose_graph",
    "run_round",
]
