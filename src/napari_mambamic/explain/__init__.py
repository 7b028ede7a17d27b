"""Why a prediction is what it is, and how tiles resemble each other."""
