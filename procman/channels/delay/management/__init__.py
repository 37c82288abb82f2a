"""Commands of the delay app."""
