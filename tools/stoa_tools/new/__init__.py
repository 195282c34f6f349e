"""`stoa new`: writes a complete small service in the pattern of all others, to be grown from there."""
