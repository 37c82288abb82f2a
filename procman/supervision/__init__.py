"""Starts, watches, restarts and stops the processes of a site, and prints one merged log.

Not on the path of a message. Starts programs by their argument lists, so it imports nothing of what it runs. The class
that does all this is ``engine.Supervisor``; this package imports nothing, because much of what is in it is needed
before and without it.
"""
