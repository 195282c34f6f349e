"""The reviews of users."""
