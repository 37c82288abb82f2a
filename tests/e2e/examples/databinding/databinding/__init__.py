"""The classic databinding of Channels 1.x on today's Django: a model that pages change, and see change."""
