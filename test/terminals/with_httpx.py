"""A terminal that uses httpx, as the Python client of the original does."""

import os
import ssl

import httpx

import contract


class Terminal:
    def __init__(self, url, ca, cert, key):
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(cert, key)
        self.client = httpx.Client(base_url=url, verify=context, timeout=30)

    def call(self, method, path, body, headers):
        answer = self.client.request(method, path, content=body, headers=headers)
        return answer.status_code, dict(answer.headers), answer.content

    def form(self, script):
        # No filename: httpx sends a form value, not a file.
        answer = self.client.post("/user/job", files={"script_content": (None, script)})
        return answer.status_code, answer.content


if __name__ == "__main__":
    e = os.environ
    contract.spend(Terminal(e["CORE"], e["CA"], e["CERT"], e["KEY"]))
