"""Distillation: from what a teacher answered, and people put right, to a small model of one's own. Pure."""
