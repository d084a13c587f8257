"""A hub on the loopback: serves one folder in the protocols of Hugging Face and of ModelScope."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["COMMIT", "HubServer", "serving"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Attributes:
    repo: `owner/name` of the only repository.
    root: folder with its files.
    asked: method, path and range of every request for a file's content.
    break_after: bytes after which the next large file's connection is cut; `None` to serve it whole.
    extra: names that ModelScope's listing adds, for lying.
    """

    daemon_threads = True

    def __init__(self, repo: str, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo, self.root = repo, root
        self.asked: list[tuple[str, str, str]] = []
        self.break_after: int | None = None
        self.extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        path, query = unquote(split.path), parse_qs(split.query)
        repo = re.escape(self.server.repo)
        if re.fullmatch(rf"/api/models/{repo}(/revision/[\w.-]+)?", path):
            siblings = [{"rfilename": self._name(file)} for file in self.server.files()]
            self._json({"id": self.server.repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        elif re.fullmatch(rf"/api/models/{repo}/tree/[\w.-]+", path):
            self._json(
                [
                    {"type": "file", "path": self._name(f), "size": f.stat().st_size, "oid": self._digest(f)[:40]}
                    for f in self.server.files()
                ]
            )
        elif found := re.fullmatch(rf"/{repo}/resolve/[\w.-]+/(.+)", path):
            self._file(found[1])
        elif re.fullmatch(rf"/api/v1/models/{repo}/repo/files", path):
            files = [
                {"Path": self._name(f), "Size": f.stat().st_size, "Sha256": self._digest(f), "Type": "blob"}
                for f in self.server.files()
            ]
            files += [{"Path": name, "Size": 1, "Sha256": "", "Type": "blob"} for name in self.server.extra]
            self._json({"Code": 200, "Data": {"Files": files}})
        elif re.fullmatch(rf"/api/v1/models/{repo}/repo", path):
            self._file(query["FilePath"][0])
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _name(self, file: Path) -> str:
        return file.relative_to(self.server.root).as_posix()

    def _digest(self, file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def _json(self, document: object) -> None:
        self._answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str) -> None:
        path = self.server.root / name
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data, wanted = path.read_bytes(), self.headers.get("Range", "")
        headers = {"ETag": f'"{self._digest(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.command == "GET":
            self.server.asked.append((self.command, name, wanted))
        if found := re.fullmatch(r"bytes=(\d+)-", wanted):
            start = int(found[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206, data[start:], headers)
            return
        self._answer(200, data, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.server.break_after
        if limit is not None and len(body) > limit and "ETag" in headers:
            self.server.break_after = None
            self.wfile.write(body[:limit])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def serving(repo: str, root: Path) -> Iterator[HubServer]:
    """A server for the time of the block."""
    with HubServer(repo, root) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
