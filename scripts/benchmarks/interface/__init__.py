"""The rows of ``scripts/bench interface``: the server that holds the sockets, and its peers, on a core of their own."""
