"""Settings of all tests."""

import os
import signal

from hypothesis import HealthCheck, settings

# How fast the machine is, and what else it does, is no matter of the rules that are tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A machine that runs tests may be a container; what that changes has tests of its own.
os.environ["PROCMAN_PLATFORM"] = "none"

# A suite that a shell has started in the background, or below nohup, ignores these, and so would every process that a
# test starts: what they do on Ctrl-C, or when their terminal has gone, could not be tested.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
