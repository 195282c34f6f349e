"""For developers: generate, lint, test, lock, begin a new service."""
