"""How each server is fetched, configured, started and asked if it is ready: one module each."""
