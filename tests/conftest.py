"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# How fast the machine is, and what else it does, is no matter of the rules that are tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
