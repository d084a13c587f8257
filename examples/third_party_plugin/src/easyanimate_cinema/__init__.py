"""A conditioner that keeps bars above and below the picture, and a sampler whose steps are spaced by a power."""
