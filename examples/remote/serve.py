"""Serves a file over HTTP until it was read once."""
import http.server
import sys

port, path = int(sys.argv[1]), sys.argv[2]


class Once(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open(path, "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with http.server.HTTPServer(("", port), Once) as server:
    server.handle_request()
