"""The notifications of users."""
