"""The hub against a small server on this machine that speaks the endpoints `huggingface_hub` uses."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from imagesmith.core.errors import BadInput, BadWeights, HubError, MissingExtra, WeightsMissing
from imagesmith.core.specs import ModelSpec
from imagesmith.models import catalogue, files, hub, hubsearch
from imagesmith.models.hubcache import HubCache, HubFile, cache_root, split_id

OLD, NEW = "a" * 40, "b" * 40
CONFIG = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}
WEIGHTS = b"\x02\0\0\0\0\0\0\0{}" + os.urandom(3_000_000)
ID = "someone/animals"


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """What the server says about one repository; every field that starts with an adjective makes it misbehave."""

    files: dict[str, bytes]
    commits: dict[str, str] = field(default_factory=lambda: {"main": OLD})
    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    tags: list[str] = field(default_factory=list)
    pipeline: str = "image-classification"
    large: int = 1000
    """Files from this size on are stated by sha256, smaller ones by git's sha1."""
    stated: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Overrides of listing entries."""
    hashless: bool = False
    gated: bool = False
    corrupted: set[str] = field(default_factory=set)
    vanished: set[str] = field(default_factory=set)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Name -> after how many bytes each next answer is cut."""
    rangeless: bool = False
    elsewhere: str | None = None
    """Send downloads on to this address, as the hub does with its large files."""
    etag: str | None = None


@dataclass
class Hub:
    """The server's state and what it was asked."""

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    status: int | None = None
    nonsense: bytes | None = None

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        return [headers for verb, path, headers in self.requests if verb == method and part in path]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.requests.append((self.command, self.path, dict(self.headers)))
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if self.hub.nonsense is not None:
            self.send(200, self.hub.nonsense, {"Content-Type": "text/html"})
        elif self.hub.status is not None:
            self.send(self.hub.status, b"busy")
        elif parts[:2] == ["api", "models"] and len(parts) == 2:
            self.listing(parse_qs(url.query))
        elif parts[:2] == ["api", "models"]:
            self.info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        else:
            self.content("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def info(self, name: str, revision: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.refuse(401, "RepoNotFound")
        elif repo.gated:
            self.refuse(403, "GatedRepo")
        elif revision not in repo.commits and revision not in repo.commits.values():
            self.refuse(404, "RevisionNotFound")
        else:
            siblings = [self.sibling(repo, path, content) for path, content in repo.files.items()]
            commit = repo.commits.get(revision, revision)
            self.send(200, json.dumps({**self.summary(name, repo), "sha": commit, "siblings": siblings}).encode())

    @staticmethod
    def summary(name: str, repo: Repo) -> dict[str, Any]:
        values = {"id": name, "modelId": name, "private": False, "downloads": 7, "likes": 1, "cardData": repo.card}
        tags = [*repo.tags, *(f"license:{repo.card[key]}" for key in ("license",) if key in repo.card)]
        return {**values, "tags": tags, "pipeline_tag": repo.pipeline}

    @staticmethod
    def sibling(repo: Repo, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": path}
        if not repo.hashless:
            entry |= {"size": len(content), "blobId": git_sha1(content)}
            if len(content) >= repo.large:
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        return {**entry, **repo.stated.get(path, {})}

    def listing(self, query: dict[str, list[str]]) -> None:
        found = []
        for name, repo in self.hub.repos.items():
            summary = self.summary(name, repo)
            wanted = query.get("search", [""])[0] in name
            wanted &= query.get("pipeline_tag", [repo.pipeline])[0] == repo.pipeline
            wanted &= all(tag in summary["tags"] for tag in query.get("filter", []))
            found += [summary] if wanted else []
        self.send(200, json.dumps(found[: int(query.get("limit", ["100"])[0])]).encode())

    def content(self, name: str, revision: str, path: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or path not in repo.files or path in repo.vanished:
            self.refuse(404, "EntryNotFound")
            return
        content = repo.files[path]
        etag = repo.etag or (hashlib.sha256(content).hexdigest() if len(content) >= repo.large else git_sha1(content))
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.commits.get(revision, revision)}
        if repo.elsewhere and len(content) >= repo.large and self.headers["Host"] not in repo.elsewhere:
            headers |= {"Location": repo.elsewhere + self.path, "X-Linked-Etag": f'"{etag}"'}
            self.send(302, b"", {**headers, "X-Linked-Size": str(len(content))})
            return
        if path in repo.corrupted:
            content = content[:-1] + bytes([content[-1] ^ 1])
        status, start = 200, 0
        if self.headers.get("Range") and not repo.rangeless:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if self.command == "GET" and repo.cuts.get(path):
            self.cut(status, body, headers, repo.cuts[path].pop(0))
        else:
            self.send(status, body, headers)

    def cut(self, status: int, body: bytes, headers: dict[str, str], after: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:after])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of the connections that the tests cut."""


@pytest.fixture
def server() -> Iterator[Hub]:
    state = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": state})
    with QuietServer(("127.0.0.1", 0), handler) as http:
        state.address = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        http.shutdown()


@pytest.fixture(autouse=True)
def quiet_world(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every setting at the test's own server and folder; no wait between attempts."""
    import huggingface_hub
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
    huggingface_hub.close_session()


@pytest.fixture
def repo(server: Hub) -> Repo:
    server.repos[ID] = Repo(
        {
            "config.json": json.dumps(CONFIG).encode(),
            "preprocessor_config.json": b'{"size": 32}',
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": b"\x80\x02evil",
            "tf_model.h5": b"x" * 5000,
            "README.md": b"# Animals",
        }
    )
    return server.repos[ID]


def cached_names(cache: Path, commit: str = OLD) -> list[str]:
    snapshot = HubCache(cache, ID).snapshot(commit)
    return sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())


def fetch_weights(**options: Any) -> Path:
    return files.locate(catalogue.find(ID), "weights", **options)


def test_only_what_is_needed_is_fetched_and_kept(server: Hub, repo: Repo, tmp_path: Path) -> None:
    spec = catalogue.find(ID)
    cache = tmp_path / "home" / "hub"
    assert cached_names(cache) == ["config.json", "preprocessor_config.json"]
    assert (spec.task, spec.labels, spec.revision, spec.license) == ("classify", ("cat", "dog"), OLD, "apache-2.0")
    assert (spec.commercial, spec.preprocessing.height) == (True, 32)
    assert spec.weights is not None
    assert spec.weights.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert not files.is_here(spec)
    path = files.locate(spec, "weights")
    assert path.read_bytes() == WEIGHTS
    assert cached_names(cache) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert files.is_here(spec)
    # the layout is huggingface_hub's own: it finds the same file
    from huggingface_hub import try_to_load_from_cache

    assert try_to_load_from_cache(ID, "model.safetensors", cache_dir=cache) == str(path)
    before = len(server.requests)
    assert fetch_weights(offline=True) == path
    assert catalogue.find(ID) == spec
    assert len(server.requests) == before


def test_a_branch_stays_pinned_until_it_is_pulled(repo: Repo) -> None:
    assert catalogue.find(ID).revision == OLD
    repo.commits["main"] = NEW
    repo.files["config.json"] = json.dumps({**CONFIG, "id2label": {"0": "emu"}}).encode()
    assert catalogue.find(ID).labels == ("cat", "dog")
    assert catalogue.find(f"{ID}@{NEW}").labels == ("emu",)
    assert catalogue.find(ID).revision == OLD
    catalogue.pull(f"{ID}@{OLD}", ("weights",))
    assert catalogue.find(ID).revision == OLD
    catalogue.pull(ID, ("weights",))
    assert catalogue.find(ID).labels == ("emu",)


def test_revisions_by_branch_tag_and_commit(repo: Repo) -> None:
    repo.commits |= {"v1.0": OLD, "refs/pr/4": NEW}
    for revision, commit in (("v1.0", OLD), ("refs/pr/4", NEW), (OLD, OLD)):
        assert catalogue.find(f"{ID}@{revision}").revision == commit
    with pytest.raises(HubError, match='someone/animals has no revision "v2"'):
        catalogue.find(f"{ID}@v2")


def test_a_cut_connection_resumes_where_it_stopped(server: Hub, repo: Repo) -> None:
    repo.cuts["model.safetensors"] = [1_000_000, 500_000]
    steps: list[tuple[str, int, int | None]] = []
    path = fetch_weights(progress=lambda *step: steps.append(step))
    assert path.read_bytes() == WEIGHTS
    ranges = [headers.get("Range") for headers in server.asked("GET", "model.safetensors")]
    assert ranges[0] is None
    starts = [int(str(text).removeprefix("bytes=").rstrip("-")) for text in ranges[1:]]
    assert starts == sorted(starts)
    assert 0 < starts[0] <= 1_000_000
    done = [step[1] for step in steps if step[0] == "model.safetensors"]
    assert done == sorted(done)
    assert steps[-1] == ("model.safetensors", len(WEIGHTS), len(WEIGHTS))


def test_a_later_run_resumes_what_an_earlier_one_left(server: Hub, repo: Repo, tmp_path: Path) -> None:
    repo.cuts["model.safetensors"] = [2_000_000] + [0] * 40
    with pytest.raises(HubError, match="What has arrived is kept"):
        fetch_weights()
    assert "model.safetensors" not in cached_names(tmp_path / "home" / "hub")
    repo.cuts.clear()
    before = len(server.requests)
    assert fetch_weights().read_bytes() == WEIGHTS
    [headers] = [headers for verb, path, headers in server.requests[before:] if "model.safetensors" in path]
    assert int(headers["Range"].removeprefix("bytes=").rstrip("-")) > 1_000_000


def test_a_server_that_ignores_ranges_is_read_from_the_start(repo: Repo) -> None:
    repo.rangeless = True
    repo.cuts["model.safetensors"] = [1_000_000]
    assert fetch_weights().read_bytes() == WEIGHTS


def test_a_corrupted_file_never_becomes_visible(repo: Repo, tmp_path: Path) -> None:
    repo.corrupted.add("model.safetensors")
    with pytest.raises(HubError, match=r"arrived damaged: the hub states sha256 \w{16}"):
        fetch_weights()
    assert "model.safetensors" not in cached_names(tmp_path / "home" / "hub")
    assert not list((tmp_path / "home").rglob("*.incomplete"))
    repo.corrupted.clear()
    assert fetch_weights().read_bytes() == WEIGHTS


def test_a_corrupted_small_file_is_noticed_too(repo: Repo) -> None:
    repo.corrupted.add("config.json")
    with pytest.raises(HubError, match=r"config.json .* git sha1"):
        catalogue.find(ID)


def test_a_file_of_another_size(repo: Repo) -> None:
    repo.stated["model.safetensors"] = {"lfs": {"sha256": "0" * 64, "size": 10, "pointerSize": 1}}
    with pytest.raises(HubError, match="wrong size"):
        fetch_weights()


def test_a_missing_file(repo: Repo) -> None:
    repo.vanished.add("model.safetensors")
    with pytest.raises(HubError, match="listed but missing on the hub"):
        fetch_weights()
    del repo.files["config.json"]
    repo.commits["main"] = NEW
    with pytest.raises(HubError, match=r"has no config.json"):
        catalogue.find(f"{ID}@{NEW}")


def test_no_such_repository_suggests_one(server: Hub) -> None:
    with pytest.raises(HubError, match='Did you mean "facebook/detr-resnet-50"'):
        catalogue.find("facebook/detr-resnet50")
    with pytest.raises(BadInput, match="There is no model"):
        catalogue.find("starter/cloths")


def test_gated_and_busy(server: Hub, repo: Repo) -> None:
    repo.gated = True
    with pytest.raises(HubError, match="accept its terms"):
        catalogue.find(ID)
    repo.gated = False
    for status in (429, 500, 503):
        server.status = status
        with pytest.raises(HubError, match=f"HTTP {status}"):
            catalogue.find(ID)


def test_something_that_is_no_hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (b"<html>Please log in to the hotel's network</html>", b"[]", b'{"id": "x"}', b""):
        server.nonsense = answer
        with pytest.raises(HubError, match="did not answer as a model hub does"):
            catalogue.find(ID)
    monkeypatch.setenv("HF_ENDPOINT", "ftp://example.org")
    with pytest.raises(HubError, match="HF_ENDPOINT"):
        catalogue.find(ID)


def test_no_network(repo: Repo, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fetch_weights()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert fetch_weights() == kept
        with pytest.raises(HubError, match=r"could not be fetched from http://127.0.0.1:\d+ .*check the network"):
            catalogue.find("someone/other")
        # a catalogue model answers with what the catalogue knows
        assert catalogue.find("facebook/detr-resnet-50") == catalogue.spec("facebook/detr-resnet-50")
        with pytest.raises(HubError):
            files.locate(catalogue.spec("facebook/detr-resnet-50"), "weights")


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_offline_asks_nobody(server: Hub, repo: Repo, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offline: bool | None = True
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        offline = None
    with pytest.raises(HubError, match=r"offline mode is on; fetch it once .* models pull someone/animals"):
        catalogue.find(ID, offline=offline)
    with pytest.raises(HubError, match="offline"):
        hubsearch.search("x", offline=offline)
    assert catalogue.find("facebook/detr-resnet-101", offline=offline).labels[1] == "person"
    assert server.requests == []
    described = hub.describe(ID, offline=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(HubError, match=r"config.json of someone/animals is not on this machine"):
        hub.fetch(described, ["config.json"], offline=True)


def test_snapshots_of_other_programs_are_used_offline(repo: Repo, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    cache = tmp_path / "theirs"
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        hf_hub_download(ID, name, cache_dir=cache, endpoint=os.environ["HF_ENDPOINT"])
    spec = catalogue.find(ID, offline=True, cache=cache)
    assert spec.labels == ("cat", "dog")
    assert files.locate(spec, "weights", offline=True, cache=cache).read_bytes() == WEIGHTS
    assert {check.state for check in files.verify(spec, cache=cache)} == {"ok"}


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a//b", "x\0y", "a/. /b"]
)
def test_hostile_names_are_as_if_not_there(repo: Repo, name: str, tmp_path: Path) -> None:
    repo.files[name] = b"canary"
    described = hub.describe(ID)
    assert name not in described.names
    assert "config.json" in described.names
    forged = described.__class__(ID, OLD, (HubFile(name, 6, git_sha1=git_sha1(b"canary")),))
    with pytest.raises((BadWeights, HubError)):
        hub.fetch(forged, [name])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"canary"]


def test_hostile_hashes_lead_nowhere(repo: Repo, tmp_path: Path) -> None:
    repo.stated["config.json"] = {"blobId": "../../../evil"}
    repo.etag = "../../../evil"
    with pytest.raises(HubError, match="states no hash"):
        catalogue.find(ID)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_mirror_that_lists_no_hashes_is_asked_for_them(repo: Repo) -> None:
    repo.hashless = True
    assert fetch_weights().read_bytes() == WEIGHTS
    repo.commits["main"], repo.corrupted = NEW, {"model.safetensors"}
    HubCache(cache_root(), ID).blob(hashlib.sha256(WEIGHTS).hexdigest()).unlink()
    with pytest.raises(HubError, match="arrived damaged"):
        files.locate(catalogue.find(f"{ID}@{NEW}"), "weights")


def test_a_link_out_of_the_cache_is_refused(repo: Repo, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(CONFIG))
    catalogue.find(ID)
    config = HubCache(cache_root(), ID).snapshot(OLD) / "config.json"
    config.unlink()
    config.symlink_to(secret)
    with pytest.raises(BadWeights, match="link out of its folder"):
        catalogue.find(ID)


def test_the_token_is_not_sent_elsewhere(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repo.elsewhere = server.address.replace("127.0.0.1", "localhost")
    assert fetch_weights().read_bytes() == WEIGHTS
    by_host = [(headers["Host"].split(":")[0], "Authorization" in headers or "authorization" in headers)
               for headers in server.asked("GET", "model.safetensors")]  # fmt: skip
    assert by_host == [("127.0.0.1", True), ("localhost", False)]


def test_a_full_disk_is_one_sentence(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = catalogue.find(ID)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub.os, "replace", full)
    with pytest.raises(HubError, match=r"cannot be stored \(No space left on device\)"):
        files.locate(spec, "weights")


def test_two_at_once_download_once(server: Hub, repo: Repo) -> None:
    spec = catalogue.find(ID)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(files.locate(spec, "weights"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in found}) == 1
    assert len(found) == 4
    assert len(server.asked("GET", "model.safetensors")) == 1


def test_only_a_pickle(repo: Repo) -> None:
    del repo.files["model.safetensors"]
    spec = catalogue.find(ID)
    with pytest.raises(BadWeights, match=r"only as a pickle \(pytorch_model.bin\).*--allow-pickle"):
        files.locate(spec, "weights")
    assert files.locate(spec, "weights", allow_pickle=True).name == "pytorch_model.bin"
    del repo.files["pytorch_model.bin"]
    repo.commits["main"] = NEW
    with pytest.raises(WeightsMissing, match="no safetensors weights"):
        files.locate(catalogue.find(f"{ID}@{NEW}"), "weights")


def test_without_torch_the_onnx_file_is_fetched(repo: Repo, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "torch_is_installed", lambda: False)
    with pytest.raises(MissingExtra, match=r'pip install "imagesmith\[torch\]"'):
        files.pull(catalogue.find(ID))
    with pytest.raises(WeightsMissing, match="no ONNX file"):
        files.locate(catalogue.find(ID), "onnx")
    repo.files |= {
        "onnx/model.onnx": b"\x08\x08\x12",
        "onnx/model.onnx_data": b"d" * 2000,
        "onnx/model_int8.onnx": b"q",
    }
    repo.commits["main"] = NEW
    assert catalogue.find(f"{ID}@main").revision == OLD  # pinned until it is pulled
    [path] = catalogue.pull(ID)
    assert path.read_bytes() == b"\x08\x08\x12"
    names = cached_names(cache_root(), NEW)
    assert names == ["config.json", "onnx/model.onnx", "onnx/model.onnx_data", "preprocessor_config.json"]
    assert not server.asked("GET", "model.safetensors")


def test_shards(repo: Repo, tmp_path: Path) -> None:
    del repo.files["model.safetensors"]
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    repo.files |= {"model-1.safetensors": WEIGHTS, "model-2.safetensors": WEIGHTS[::-1]}
    repo.files["model.safetensors.index.json"] = json.dumps(index).encode()
    path = fetch_weights()
    assert path.name == "model.safetensors.index.json"
    assert (path.parent / "model-2.safetensors").read_bytes() == WEIGHTS[::-1]
    canary = tmp_path / "canary"
    canary.write_bytes(b"")
    index["weight_map"]["c"] = f"../../../{canary.name}"
    repo.files["model.safetensors.index.json"] = json.dumps(index).encode()
    repo.commits["main"] = NEW
    with pytest.raises(BadWeights, match="leads out of its folder"):
        files.locate(catalogue.find(f"{ID}@{NEW}"), "weights")


def test_verify_notices_what_changed_on_disk(repo: Repo) -> None:
    path = fetch_weights()
    spec = catalogue.find(ID)
    states = {check.path.name: check.state for check in files.verify(spec)}
    assert states == {"config.json": "ok", "preprocessor_config.json": "ok", "model.safetensors": "ok"}
    content = bytearray(path.read_bytes())
    content[1_500_000] ^= 1
    path.resolve().write_bytes(content)
    steps: list[int] = []
    checks = {
        check.path.name: check for check in files.verify(spec, progress=lambda name, done, total: steps.append(done))
    }
    assert checks["model.safetensors"].state == "damaged"
    assert checks["model.safetensors"].actual == hashlib.sha256(content).hexdigest()
    assert steps[-1] == len(WEIGHTS)
    with pytest.raises(WeightsMissing, match="models pull facebook/detr-resnet-50"):
        files.verify(catalogue.spec("facebook/detr-resnet-50"))


def test_a_catalogue_model_takes_labels_from_its_files_and_licence_from_the_catalogue(server: Hub) -> None:
    name = "rizvandwiki/gender-classification"
    server.repos[name] = Repo(
        {
            "config.json": json.dumps({**CONFIG, "id2label": {"0": "male", "1": "female"}}).encode(),
            "model.safetensors": WEIGHTS,
        },
        card={},
    )
    spec = catalogue.find(name)
    assert spec.labels == ("male", "female")
    assert (spec.license, spec.commercial) == ("not stated", None)
    assert "Any decision about a person" in spec.not_for
    assert spec.metrics == {"published_accuracy": 0.924}


def test_damaged_notes_in_the_cache(repo: Repo) -> None:
    catalogue.find(ID)
    note = HubCache(cache_root(), ID).folder / "imagesmith" / f"{OLD}.json"
    for text in ("{", "[]", '{"files": [{}]}', '{"files": [{"name": "../x"}], "license": null}'):
        note.write_text(text)
        with pytest.raises(BadWeights):
            catalogue.find(ID)


def test_search(server: Hub, repo: Repo) -> None:
    segformer = {"architectures": ["SegformerForSemanticSegmentation"], "id2label": {"0": "sky", "1": "sea"}}
    server.repos["lab/coast"] = Repo(
        {"config.json": json.dumps(segformer).encode()}, card={"license": "cc-by-nc-4.0"}, pipeline="image-segmentation"
    )
    server.repos["lab/text"] = Repo({"config.json": b'{"architectures": ["BertModel"]}'}, card={}, pipeline="fill-mask")
    server.repos["lab/empty"] = Repo({}, card={}, pipeline="object-detection")
    found = {model.name: model for model in hubsearch.search()}
    assert found["lab/coast"].labels == ("sky", "sea")
    assert (found["lab/coast"].task, found["lab/coast"].commercial, found["lab/coast"].native) == (
        "segment",
        False,
        True,
    )
    assert (found[ID].license, found[ID].commercial, found[ID].downloads) == ("apache-2.0", True, 7)
    assert (found["lab/text"].task, found["lab/empty"].task) == (None, "detect")
    assert [model.name for model in hubsearch.search("coast")] == ["lab/coast"]
    assert [model.name for model in hubsearch.search(task="classify")] == [ID]
    assert [model.name for model in hubsearch.search(license="Apache-2.0")] == [ID]
    assert "lab/coast" not in [model.name for model in hubsearch.search(commercial_only=True)]
    assert json.dumps([model.to_dict() for model in hubsearch.search(limit=2)])
    server.status = 500
    with pytest.raises(HubError, match="The list of models"):
        hubsearch.search()


@pytest.mark.parametrize(
    "text", ["a", "a/b/c", "a/../b", "/a/b", "a/b@", "a/b@../x", "a b/c", "-a/b", "a--b/c", "a/b.", "é/b"]
)
def test_ids_that_are_none(text: str) -> None:
    with pytest.raises(BadInput):
        split_id(text)


@pytest.mark.parametrize(
    ("repository", "revision"), [("a/b", "../../x"), ("a/b", "/x"), ("../b", None), ("a/b", "x\ny")]
)
def test_no_name_leads_out_of_the_cache(repository: str, revision: str | None, server: Hub) -> None:
    with pytest.raises(BadInput):
        hub.describe(repository, revision)
    assert server.requests == []


def test_where_the_cache_is(tmp_path: Path) -> None:
    """The same places, in the same order, as huggingface_hub has them."""
    assert cache_root(tmp_path, {}) == tmp_path
    assert cache_root(None, {"HF_HUB_CACHE": "/x", "HF_HOME": "/y"}) == Path("/x")
    assert cache_root(None, {"HF_HOME": "/y"}) == Path("/y/hub")
    assert cache_root(None, {"XDG_CACHE_HOME": "/z"}) == Path("/z/huggingface/hub")
    assert cache_root(None, {}) == Path("~/.cache/huggingface/hub").expanduser()


def test_a_cached_model_needs_no_hub_library(repo: Repo, tmp_path: Path) -> None:
    import subprocess
    import sys

    fetch_weights()
    code = (
        "import sys; from imagesmith.models import catalogue, files;"
        f"files.locate(catalogue.find('{ID}'), 'weights');"
        "sys.exit(' '.join({'huggingface_hub', 'httpx2', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_specs_without_a_known_source() -> None:
    spec = ModelSpec(name="x", task="segment", architecture="segformer", source="web:x")
    with pytest.raises(WeightsMissing, match=r'source "web:x"'):
        files.locate(spec, "weights")
