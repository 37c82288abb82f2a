"""The root of every error that procman raises.

Packages derive their own errors from these; nothing here does I/O or imports anything.
"""


class ProcmanError(Exception):
    """Something procman refuses or cannot do; the text says what happened and what to do."""


class ConfigurationError(ProcmanError):
    """A setting, flag or environment variable is wrong or missing: change it and start again.

    The command line prints the text in one line and exits with status 2.
    """
