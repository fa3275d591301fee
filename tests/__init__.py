"""A package of its own: some packages of others install a top-level `tests`, which would hide this folder."""
