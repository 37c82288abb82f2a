"""The socket of the page."""

from databinding.bindings import Demultiplexer
from procman.channels import route_class

channel_routing = [route_class(Demultiplexer, path=r"^/$")]
