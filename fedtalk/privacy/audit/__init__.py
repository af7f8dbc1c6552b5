"""Empirical privacy: attacks on a finished run, and what they prove about its epsilon.

Three attacks, each beside its controls: membership of a client in the released adapter (`membership`), canary clients
through the run's own aggregation (`canaries`, bounds in `one_run` and `repeated`), and what a single update reveals, in
the clear, masked, summed and noised (`reidentification`, `appearance`). A lower bound says that the mechanism is no
better than that, with a stated confidence; it never says that it is as good as its ledger claims.
"""
