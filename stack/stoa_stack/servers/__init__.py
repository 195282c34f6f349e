"""How each server is fetched, configured, started and asked if it is ready: one module each.

A server's client is imported by its readiness check, not with the module: the table of parts is read by every
command, and the clients take a second to load.
"""
