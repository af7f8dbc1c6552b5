"""Empirical privacy: attacks on a finished run, what they prove about its epsilon, and what its engine really does.

Three attacks, each beside its controls: membership of a client in the released adapter (`membership`), canary clients
through the engine's own rounds (`canaries`, `engine_game`, bounds in `one_run` and `repeated`), and what a single update
reveals, in the clear, masked, summed and noised (`reidentification`, `appearance`). A lower bound says that the mechanism is no
better than that, with a stated confidence; it never says that it is as good as its ledger claims. So the premises of the
ledger's arithmetic are measured one by one while the canaries play (`engine_checks`), and the verdict is "inconclusive" where the
canaries could not have refuted the ledger anyway (`verdict`).
"""
