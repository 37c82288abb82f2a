"""The classic multichat of Channels 1.x on today's Django: several rooms over one socket, some for staff."""
