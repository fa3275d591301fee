"""Plan to model: the cut, and what records mean for a model."""
