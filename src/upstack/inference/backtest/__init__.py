"""What any policy would have cost and lost on recorded traffic, and which is good enough. Needs the extra `learn`."""
