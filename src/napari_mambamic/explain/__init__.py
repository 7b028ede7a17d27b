"""Why weights say what they say, and how far they can be trusted."""
