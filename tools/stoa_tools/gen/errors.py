"""What makes generation stop."""


class GenerationFailed(Exception):
    """A contract is wrong, or a tool refused it; the message says which and why."""
