"""What an operator does with a shop that runs: docs/operations.md has a section on each command."""
