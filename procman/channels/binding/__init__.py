"""Data binding: changes of models to groups, and changes that clients ask for to models."""

from procman.channels.binding.base import CREATE, DELETE, UPDATE, Binding

__all__ = ["CREATE", "DELETE", "UPDATE", "Binding"]
