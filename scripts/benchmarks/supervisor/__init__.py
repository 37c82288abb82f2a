"""The supervisor alone: what it does with processes and lines, beside honcho and supervisord."""
