"""What a training clip is given besides its caption."""
