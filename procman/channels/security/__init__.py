"""Checks around consumers, at their 1.x names."""
