"""The catalogue of the demo shop: what a fresh shop sells, so that there is something to see and to buy."""

from stoa_stack.demo_catalogue.loader import Summary, load
from stoa_stack.demo_catalogue.products import DemoProduct, demo_products

__all__ = ["DemoProduct", "Summary", "demo_products", "load"]
