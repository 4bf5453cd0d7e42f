"""What is learned from graded rows: how likely an answer is wrong. Trained by scikit-learn, served by numpy alone."""
