"""A flow sampler whose steps are spaced by a power."""
