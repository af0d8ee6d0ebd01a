"""What is asked to name a cause: one computation on both sides from the same numbers, by where a difference shows."""
