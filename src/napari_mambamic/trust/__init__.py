"""What guards against plausible wrong answers: doubt, strangeness, sets of classes, warnings."""
