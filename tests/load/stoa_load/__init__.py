"""Measuring the shop: how long requests take, what they cost, and whether it holds under a long load."""
