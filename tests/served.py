"""A web server of this machine that breaks off, redirects and refuses as it is told."""

import hashlib
import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What the server does: `files` by path, and how it behaves."""

    def __init__(self):
        self.files = {}
        self.headers = {}
        self.redirects = {}
        self.status = {}
        self.breaks = []  # bytes after which the next answers break off
        self.ranges = True
        self.requests = []
        self.address = ""

    def asked(self, method="GET"):
        return [request for request in self.requests if request[0] == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        site, path = self.server.site, self.path.partition("?")[0]
        site.requests.append((self.command, path, self.headers.get("Range")))
        self.close_connection = True
        if path in site.redirects:
            return self.say(302, {"Location": site.redirects[path]})
        data = site.files.get(path)
        if path in site.status or data is None:
            return self.say(site.status.get(path, 404), site.headers.get(path, {}))
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        status, start, fields = 200, 0, {"ETag": tag, "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and site.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(wanted[1])
            if start >= len(data):
                return self.say(416, {"Content-Range": f"bytes */{len(data)}"})
            fields["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            status = 206
        rest = data[start:]
        self.say(status, {**fields, **site.headers.get(path, {})}, len(rest))
        if body:
            with suppress(ConnectionError):  # who asked had enough
                self.wfile.write(rest[: site.breaks.pop(0)] if site.breaks else rest)
        return None

    def say(self, status, fields, length=0):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if "Content-Length" not in fields:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()


@contextmanager
def serving():
    """Yield a site that is served on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.site = Site()
    server.site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
