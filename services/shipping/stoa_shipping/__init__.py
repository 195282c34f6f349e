"""Parcels: what they cost, who brings them, and where they are."""
