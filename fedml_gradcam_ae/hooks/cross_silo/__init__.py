"""Cross-silo deployments: a server that its clients can neither stop nor take over."""
