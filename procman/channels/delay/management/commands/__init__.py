"""``manage.py rundelay``."""
