"""What a caller may choose of the speech that answers."""
