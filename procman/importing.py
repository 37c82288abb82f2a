"""``"package.module:attribute"`` or ``"package.module.attribute"`` to the object.

Errors name the half at fault.
"""

import importlib
from typing import Any

from procman.errors import ConfigurationError


def import_object(path: str) -> Any:
    """The object at *path*.

    Raises:
        ConfigurationError: the module does not exist or fails to import, or it has no such attribute;
            the text says which.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator:
        module_name, separator, attribute = path.rpartition(".")
    if not module_name or not attribute:
        raise ConfigurationError(f"{path!r} is not a dotted path to an object: write 'package.module.attribute'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"cannot import module {module_name!r} of {path!r}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(
                f"module {module_name!r} has no attribute {attribute!r} (asked for as {path!r})"
            ) from None
    return found
