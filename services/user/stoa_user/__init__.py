"""Accounts, addresses and tokens."""
