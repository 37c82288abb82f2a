"""The classic liveblog of Channels 1.x on today's Django: posts that appear in every open page as they are saved."""
