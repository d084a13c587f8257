"""EasyAnimate SDK."""
