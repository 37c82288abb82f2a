"""Pages."""

from django.shortcuts import get_object_or_404, render

from liveblog.models import Liveblog


def index(request):
    """All blogs."""
    return render(request, "index.html", {"liveblogs": Liveblog.objects.order_by("title")})


def liveblog(request, slug):
    """One blog, as it is now; the rest comes over the socket."""
    blog = get_object_or_404(Liveblog, slug=slug)
    return render(request, "liveblog.html", {"liveblog": blog, "posts": blog.posts.all()[:100]})
