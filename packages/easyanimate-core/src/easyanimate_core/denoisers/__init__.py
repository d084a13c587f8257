"""Networks that predict noise or velocity: one folder per family."""
