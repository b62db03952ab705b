"""Many trainings on one budget, and what their numbers allow to say."""
