"""Migrations of the delay app."""
