"""Training: objectives, schedule and loop."""
