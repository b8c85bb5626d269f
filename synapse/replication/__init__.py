"""How processes stay in sync: the line protocol, streams, calls to the main process, leases."""
