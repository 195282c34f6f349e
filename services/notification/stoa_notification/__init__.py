"""Tells users by mail, SMS and push what happens to their accounts and orders."""
