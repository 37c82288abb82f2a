import pytest

from procman.errors import ConfigurationError
from procman.layers.redis.keys import check_prefix


def test_all_keys_of_a_site_have_one_hash_tag() -> None:
    assert check_prefix("mysite") == "{mysite}:"


@pytest.mark.parametrize("prefix", ["", "a*", "a{b", "x" * 65, None])
def test_a_prefix_that_means_something_in_a_pattern_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        check_prefix(prefix)
