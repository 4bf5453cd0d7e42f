"""How plans are made: which route is asked, and when its answer is not trusted. Pure."""
