"""What an answer is worth: graders compare it with a truth, and two answers with each other. Pure."""
