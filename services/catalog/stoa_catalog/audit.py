"""The books of the catalog service, as the audit reads them."""

from collections.abc import Collection

# What it consumes of its own events is projected by revision, as often as it comes, and noted nowhere.
NOTED: Collection[str] = ()
