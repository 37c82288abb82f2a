"""Which of a number's changes are sent to whom, and who may change it."""

from databinding.models import IntegerValue
from procman.channels.binding.websockets import WebsocketBinding
from procman.channels.generic.websockets import WebsocketDemultiplexer


class IntegerValueBinding(WebsocketBinding):
    """All pages see all numbers, and may change them."""

    model = IntegerValue
    stream = "intval"
    fields = ["name", "value"]

    @classmethod
    def group_names(cls, instance):
        return ["intval-updates"]

    def has_permission(self, user, action, pk):
        return True


class Demultiplexer(WebsocketDemultiplexer):
    """The one socket of a page."""

    consumers = {"intval": IntegerValueBinding.consumer}
    groups = ["intval-updates"]
