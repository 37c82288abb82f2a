"""Settings; environment variables choose a variant."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parents[1]
VARIANT = os.environ.get("MIRROR_VARIANT", "plain")
SECRET_KEY = "mirror"
DEBUG = VARIANT == "debug"
ALLOWED_HOSTS = ["mirror.test", ".example.com", "127.0.0.1", "[::1]"]
ROOT_URLCONF = "mirror.urls"
INSTALLED_APPS = [
    "procman.channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "mirror.middleware.noting",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "mirror.middleware.shouting",
    "mirror.middleware.raising",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
SIGNING_BACKEND = "mirror.signing.TimelessSigner"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
USE_TZ = True
DATA_UPLOAD_MAX_MEMORY_SIZE = 20_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 50
DATA_UPLOAD_MAX_NUMBER_FILES = 5
FILE_UPLOAD_MAX_MEMORY_SIZE = 10_000
if VARIANT == "proxied":
    FORCE_SCRIPT_NAME = "/mounted"
    USE_X_FORWARDED_HOST = USE_X_FORWARDED_PORT = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 60
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "ERROR"}}
WSGI_APPLICATION = "mirror.wsgi.application"
