"""What can be set of the search service."""

from pydantic import Field

from stoa_chassis.settings import OpenSearchSettings


class Settings(OpenSearchSettings):
    """The common settings, and what is its own."""

    # What the index in use is called: an alias. Indices are named like it, with a number behind.
    index: str = Field(default="products", pattern="^[a-z][a-z0-9_-]*$")
    # How many nodes keep a copy beside the first, as OpenSearch writes it: as many as there are, but one at
    # most. Of a new index.
    replicas: str = "0-1"
    # Into how many parts an index is split. Of a new one.
    shards: int = Field(default=1, ge=1)
    # How often it is looked whether the index is still there. Seconds.
    look_seconds: float = Field(default=30, gt=0)
    # How long the pages of a search show the shop as it was for the first one. Seconds.
    paging_seconds: int = Field(default=90, ge=1)
    # How long searches may share a view of the index, which a new one takes a little to make. Seconds.
    view_seconds: float = Field(default=2, ge=0)
    # How long a rebuild waits, after events have begun to be written to the new index, until all that
    # happened before can be read in the catalogue. Seconds.
    settle_seconds: float = Field(default=3, ge=0)
