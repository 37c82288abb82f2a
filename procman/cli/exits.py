"""The exit statuses of ``channels-run``, in one place.

0    asked to stop, and did; or the command did what it was asked
1    an error that nobody foresaw: a traceback says more
2    a wrong or missing flag, setting or file: one line on stderr says what to do
3    ``status``: nothing is running
4    gave up: a process that the site needs could not be started
5    gave up: everything had been up, then the interface, the layer or all workers kept crashing
130  a second Ctrl-C forced the end
141  nobody reads the log any more (a closed pipe)
"""

OK = 0
UNEXPECTED = 1
USAGE = 2
NOT_RUNNING = 3
NEVER_READY = 4
CRASH_LOOP = 5
FORCED = 130
OUTPUT_CLOSED = 141
