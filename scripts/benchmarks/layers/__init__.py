"""Channel layers on the same work. A driver process measures each of them and starts the others that this needs."""
