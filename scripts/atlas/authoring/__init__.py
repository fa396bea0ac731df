"""What those who write and maintain workshops use, and no learner's process imports."""
