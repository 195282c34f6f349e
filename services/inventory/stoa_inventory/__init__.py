"""Stock, reservations and movements."""
