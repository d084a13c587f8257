"""The nano family: blueprint, recipes and release gate of the embedded default model."""
