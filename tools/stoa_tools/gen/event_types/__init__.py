"""The hand-written part of the package stoa_events; `stoa gen` copies it there as it is."""
