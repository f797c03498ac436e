"""Patches of cross-silo deployments: a server that clients can neither stop nor take over."""
