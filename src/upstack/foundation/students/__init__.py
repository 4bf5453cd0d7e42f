"""Students: small models of one's own, served by numpy alone. Trained by `inference.distill`."""
