"""How a round's sum is made, as aggregators that wrap each other: clip -> discretise -> noise -> sum, and masks around it all.

    Clipped(Discretised(Noised(PlainSum(ring), ...), ...), ...)

Each does one thing to a client's vector on its way in, undoes it in the sum on its way out, may be constructed and tried alone,
and says what it guarantees and what it is *not* safe with. What a client's half gives is masked before it leaves (`Masked`);
what a server's half is given is an opened sum, never a single vector.
"""

from fedtalk.privacy.aggregators.aggregator import Aggregator, PlainSum
from fedtalk.privacy.aggregators.clipped import Clipped
from fedtalk.privacy.aggregators.discretised import Discretised
from fedtalk.privacy.aggregators.masked import Masked
from fedtalk.privacy.aggregators.noised import Noised

__all__ = ["Aggregator", "Clipped", "Discretised", "Masked", "Noised", "PlainSum"]
