"""One Django project behind two servers: gunicorn, through Django's own WSGI handler, and ``channels-run``."""
