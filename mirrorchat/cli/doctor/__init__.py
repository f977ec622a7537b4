"""What keeps MirrorChat from working: what is looked at, and what is found."""
