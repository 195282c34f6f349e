"""The contracts as programs read them: the base of events, money, and what is declared of each service."""
