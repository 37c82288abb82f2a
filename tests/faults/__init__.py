"""What breaks, and what may not break with it: processes killed, stopped, stuck and overrun."""
