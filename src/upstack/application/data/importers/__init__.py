"""What others recorded, as receipts: a file a format, each a function from a line to the exchanges in it."""
