"""Video autoencoders: pixels in −1…1 to scaled latents and back."""
