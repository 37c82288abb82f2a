"""Options of a connection as texts of a URL and as Python values."""

from typing import Any

import pytest

from procman.errors import ConfigurationError
from procman.layers.redis.options import check_options


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("socket_timeout", "20", 20.0),
        ("socket_connect_timeout", 1, 1.0),
        ("socket_keepalive", "no", False),
        ("socket_keepalive", True, True),
        ("ssl_check_hostname", "True", True),
        ("ssl_cert_reqs", "none", "none"),
        ("ssl_cert_reqs", "CERT_NONE", "none"),
        ("ssl_cert_reqs", None, "none"),
        ("ssl_cert_reqs", 2, "required"),
        ("db", "3", 3),
        ("password", 1234, "1234"),
    ],
)
def test_values_come_out_in_their_types(name: str, value: Any, result: Any) -> None:
    found = check_options({name: value}, "here")
    assert found == {name: result} and type(found[name]) is type(result)


def test_options_that_concern_other_programs_or_the_pool_are_left_out() -> None:
    assert check_options({"family": "0", "max_connections": 5, "protocol": "3", "password": None}, "here") == {}


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("socket_timeout", 0, "seconds above 0"),
        ("socket_timeout", "nan", "seconds above 0"),
        ("socket_keepalive", "perhaps", "true or false"),
        ("ssl_cert_reqs", "maybe", "none, optional or required"),
        ("db", -1, "database number"),
        ("username", ["a"], "a text"),
        ("retries", 3, "no option 'retries'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_being_shown(name: str, value: Any, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word) as refused:
        check_options({name: value}, "here")
    assert str(refused.value).startswith("here: ") and "perhaps" not in str(refused.value)
