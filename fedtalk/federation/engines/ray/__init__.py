"""Everything above one process: Ray's actors do clients' local work on this machine or on a cluster.

The server, the sealing and all secrets (aggregation, ledger, keys) stay in the main process; an actor is sent the module and the
data once, and then the global adapter and clients' names. Nothing here is imported without need: Ray is an extra.
"""
