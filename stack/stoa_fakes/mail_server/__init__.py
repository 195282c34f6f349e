"""A mail server that keeps what it gets, for people to look at and for programs to ask about."""
