"""What a test with chromium needs."""

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE = """
<p id="state"></p><p id="last"></p>
<script>
  const show = (id, text) => document.getElementById(id).textContent = text;
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat/");
  socket.onopen = () => show("state", "open");
  socket.onmessage = (event) => show("last", event.data);
</script>
"""
