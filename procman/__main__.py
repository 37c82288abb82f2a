"""``python -m procman`` is ``channels-run``."""

from procman.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
