"""What the builders share."""
