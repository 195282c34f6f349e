"""The Envoy edge: its configuration, rendered from the contracts."""
