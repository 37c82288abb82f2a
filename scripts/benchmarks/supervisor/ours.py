"""A supervisor of ours over programs that know nothing of it: ``ours.py CONTROL '{"name": ["word", ...], ...}'``."""

import json
import sys

from procman.settings import SupervisorSettings
from procman.supervision.engine import Supervisor
from procman.supervision.formation import ProcessType, build_formation
from procman.supervision.procfile import READY_AFTER


def main(control: str, programs: str) -> int:
    """Run *programs* with the control socket at *control*; the exit status."""
    types = [
        ProcessType(name, words, single=True, announces=False, ready_after=READY_AFTER)
        for name, words in json.loads(programs).items()
    ]
    return Supervisor(build_formation(types), SupervisorSettings(), control_path=control).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
