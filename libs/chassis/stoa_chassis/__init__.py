"""The microservice chassis: what every service would otherwise repeat."""
