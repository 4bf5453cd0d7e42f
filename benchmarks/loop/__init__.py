"""What the learning loop is made of, measured piece by piece."""
