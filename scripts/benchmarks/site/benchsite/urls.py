"""One view, of a project whose import takes ``BENCH_IMPORT_SECONDS``."""

import os
import time

from django.http import HttpResponse
from django.urls import path

time.sleep(float(os.environ.get("BENCH_IMPORT_SECONDS", "0")))
urlpatterns = [path("", lambda request: HttpResponse("hello", content_type="text/plain"))]
