"""A terminal of the standard library alone: ssl and http.client."""

import http.client
import os
import ssl
import urllib.parse

import contract


class Terminal:
    def __init__(self, url, ca, cert, key, newest=None):
        self.at = urllib.parse.urlsplit(url)
        self.context = ssl.create_default_context(cafile=ca)
        self.context.load_cert_chain(cert, key)
        if newest:
            self.context.maximum_version = newest

    def call(self, method, path, body, headers):
        connection = http.client.HTTPSConnection(self.at.hostname, self.at.port, context=self.context, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def form(self, script):
        boundary = "any boundary: it's fine"
        body = ("--%s\r\nContent-Disposition: form-data; name=\"script_content\"\r\n\r\n%s\r\n--%s--\r\n" % (boundary, script, boundary)).encode()
        status, _, content = self.call("POST", "/user/job", body, {"Content-Type": 'multipart/form-data; boundary="%s"' % boundary})
        return status, content


def main():
    e = os.environ
    files = (e["CORE"], e["CA"], e["CERT"], e["KEY"])
    # The older of both versions is spoken to as well.
    status, _, content = Terminal(*files, newest=ssl.TLSVersion.TLSv1_2).call("GET", "/user", None, {})
    contract.check(status == 200, "TLS 1.2:", status, content)
    # Without a certificate nobody is let in.
    bare = ssl.create_default_context(cafile=e["CA"])
    at = urllib.parse.urlsplit(e["CORE"])
    try:
        connection = http.client.HTTPSConnection(at.hostname, at.port, context=bare, timeout=30)
        connection.request("GET", "/user/job")
        answer = connection.getresponse()
        content = answer.read()
        contract.check(answer.status == 401 and content.strip() == b'{"error":"unauthorized"}', "without a certificate:", answer.status, content)
    except (ssl.SSLError, ConnectionError):
        pass  # refused even earlier
    contract.spend(Terminal(*files))


if __name__ == "__main__":
    main()
