"""How fast the embedded engine is, as ratios to what a user would run instead."""
