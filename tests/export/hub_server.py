"""A server with the routes of the HuggingFace hub that its client asks for: create, preupload, commit, resolve."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN = "hf_test"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content=b"", status=200, headers=()):
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), [("Content-Type", "application/json"), *headers]
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code, message):
        self.answer({"error": message}, status, [("X-Error-Code", code), ("X-Error-Message", message)])

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlparse(self.path).path).strip("/")
        self.server.requests.append(f"{self.command} {path}")
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            files = self.server.repositories.get("/".join(parts[2:4]))
            if files is None:
                return self.refuse(404, "RepoNotFound", "Repository not found")
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": "/".join(parts[2:4]), "sha": "0" * 40, "siblings": siblings})
        files = self.server.repositories.get("/".join(parts[:2]))
        if files is None or len(parts) < 5 or parts[2] != "resolve":
            return self.refuse(404, "RepoNotFound", "Repository not found")
        content = files.get("/".join(parts[4:]))
        commit = ("X-Repo-Commit", "0" * 40)
        if content is None:
            headers = [("X-Error-Code", "EntryNotFound"), commit]
            return self.answer({"error": "Entry not found"}, 404, headers)
        self.answer(content, headers=[("ETag", f'"{hashlib.sha1(content).hexdigest()}"'), commit])

    def do_POST(self):
        path = unquote(urlparse(self.path).path).strip("/")
        self.server.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "", "Invalid username or password.")
        if path == "api/repos/create":
            options = json.loads(body)
            name = f"{options.get('organization') or 'me'}/{options['name']}"
            self.server.private[name] = options.get("private", options.get("visibility") == "private")
            status = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, {})
            return self.answer({"url": f"{self.server.address}/{name}", "name": name, "id": name}, status)
        owner, name, action = path.split("/")[2:5]
        files = self.server.repositories[f"{owner}/{name}"]
        if action == "preupload":
            answers = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": answers})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = f"{self.server.address}/{owner}/{name}/commit/{'0' * 40}"
        self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})


class HubServer(ThreadingHTTPServer):
    """Hold repositories in memory; `requests` lists what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.private, self.requests = {}, {}, []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
