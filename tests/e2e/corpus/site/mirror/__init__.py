"""The project that both servers serve."""
