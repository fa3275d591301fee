"""A second opinion on what the rules say of operations, by what the operations themselves are."""
