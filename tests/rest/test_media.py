"""Media through their endpoints, on a real database and a real directory."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from PIL import Image
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from synapse.handlers.media import MAX_RESERVED, RESERVED_FOR_MS, Media
from synapse.handlers.media_admin import MediaAdmin, media_in
from synapse.handlers.media_upkeep import MediaUpkeep
from synapse.media.filestore import FileStore, is_media_id
from synapse.media.headers import byte_range, checked_name, checked_type, disposition
from synapse.media.thumbnails import Size, choose
from synapse.rest.admin.media import AdminMedia
from synapse.rest.media.content import MediaContent
from synapse.storage.database import Database, Transaction
from synapse.storage.media import MediaStore
from tests.rest.driver import Body, Driver, Reply

ALICE, BOB, ADMIN = "@alice:test", "@bob:test", "@admin:test"
UPLOAD, DOWNLOAD = "/_matrix/media/v3/upload", "/_matrix/client/v1/media/download"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail"
LIMIT = 1_000_000
BYTES = bytes(range(256)) * 100


class Repository:
    """The content repository and its files."""

    def __init__(self, database: Database, root: Path) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.root = root
        store, files = MediaStore(database), FileStore(str(root))
        media = Media(store, files, self.clock, deferToThread, "test", LIMIT)
        self.driver = Driver(MediaContent(media), AdminMedia(MediaAdmin(store, files, deferToThread, "test")))

    async def upload(self, data: bytes, media_type: str | None = None, name: str | None = None) -> str:
        """Returns the media id."""
        headers = {"content-type": media_type} if media_type else {}
        query = {"filename": name} if name else None
        pieces = [data[at : at + 70_000] for at in range(0, len(data), 70_000)]
        reply = await self.driver.call("POST", UPLOAD, user=ALICE, query=query, headers=headers, stream=Body(pieces))
        assert reply.code == 200, reply
        uri = reply.json["content_uri"]
        assert uri.startswith("mxc://test/")
        return str(uri[11:])

    async def get(self, path: str, **kw: Any) -> Reply:
        return await self.driver.call("GET", path, user=ALICE, **kw)

    def leftovers(self) -> list[str]:
        return os.listdir(self.root / "incoming")


@pytest.fixture
def repository(database: Database, tmp_path: Path) -> Repository:
    return Repository(database, tmp_path / "media")


@pytest.mark.parametrize("size", [0, 1, 69_999, 300_000, LIMIT])
@pytest_twisted.ensureDeferred
async def test_a_file_comes_back_byte_for_byte(repository: Repository, size: int) -> None:
    data = (BYTES * (size // len(BYTES) + 1))[:size]
    media_id = await repository.upload(data, "image/png", "Bild ä.png")
    for prefix in (DOWNLOAD, "/_matrix/media/r0/download", "/_matrix/media/v3/download"):
        reply = await repository.get(f"{prefix}/test/{media_id}")
        assert (reply.code, reply.body) == (200, data)
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-disposition"] == "inline; filename*=utf-8''Bild%20%C3%A4.png"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert reply.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert repository.leftovers() == []


@pytest_twisted.ensureDeferred
async def test_a_name_in_the_path_wins(repository: Repository) -> None:
    media_id = await repository.upload(b"x", "text/html", "a.html")
    reply = await repository.get(f"{DOWNLOAD}/test/{media_id}/b.txt")
    assert reply.headers["content-disposition"] == 'attachment; filename="b.txt"'
    assert reply.headers["content-type"] == "text/html"


@pytest_twisted.ensureDeferred
async def test_a_part_of_a_file(repository: Repository) -> None:
    media_id = await repository.upload(b"0123456789")
    part = await repository.get(f"{DOWNLOAD}/test/{media_id}", headers={"range": "bytes=2-4"})
    assert (part.code, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert (await repository.get(f"{DOWNLOAD}/test/{media_id}", headers={"range": "bytes=10-"})).code == 416
    whole = await repository.get(f"{DOWNLOAD}/test/{media_id}", headers={"range": "lines=1-"})
    assert (whole.code, whole.body) == (200, b"0123456789")


@pytest.mark.parametrize("announced", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(repository: Repository, announced: bool) -> None:
    body = Body([b"x" * LIMIT, b"x"], announced)
    reply = await repository.driver.call("POST", UPLOAD, user=ALICE, stream=body)
    assert (reply.code, reply.errcode) == (413, "M_TOO_LARGE")
    if not announced:
        assert repository.leftovers() == []
    assert not (repository.root / "local_content").exists()


@pytest.mark.parametrize(
    "path",
    [
        f"{DOWNLOAD}/test/nothinghere",
        f"{DOWNLOAD}/far/nothinghere",
        f"{DOWNLOAD}/test/..%2F..%2Fetc%2Fpasswd",
        f"{DOWNLOAD}/test/short",
        f"{DOWNLOAD}/test/" + "a" * 300,
        f"{THUMBNAIL}/test/nothinghere?width=1&height=1",
        f"{THUMBNAIL}/far/nothinghere?width=1&height=1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_not_found(repository: Repository, path: str) -> None:
    reply = await repository.get(path)
    assert (reply.code, reply.errcode) == (404, "M_NOT_FOUND")


@pytest_twisted.ensureDeferred
async def test_authenticated_media_want_a_token(repository: Repository) -> None:
    for path in (f"{DOWNLOAD}/test/nothinghere", f"{THUMBNAIL}/test/nothinghere", "/_matrix/client/v1/media/config"):
        assert (await repository.driver.call("GET", path)).errcode == "M_MISSING_TOKEN"
    assert (await repository.get("/_matrix/client/v1/media/config")).json == {"m.upload.size": LIMIT}
    assert (await repository.get("/_matrix/media/v3/config")).json == {"m.upload.size": LIMIT}


# -- announced uploads -------------------------------------------------------------------------------------------------


async def reserve(repository: Repository) -> str:
    reply = await repository.driver.call("POST", "/_matrix/media/v1/create", user=ALICE)
    assert reply.json["unused_expires_at"] == repository.clock.seconds() * 1000 + RESERVED_FOR_MS
    return str(reply.json["content_uri"]).removeprefix("mxc://test/")


async def put(repository: Repository, media_id: str, data: bytes = b"late", user: str = ALICE) -> Reply:
    path = f"{UPLOAD}/test/{media_id}"
    return await repository.driver.call(
        "PUT", path, user=user, headers={"content-type": "text/plain"}, stream=Body([data])
    )


@pytest_twisted.ensureDeferred
async def test_an_announced_file_is_uploaded_once_by_its_user(repository: Repository) -> None:
    media_id = await reserve(repository)
    assert (await put(repository, media_id, user=BOB)).errcode == "M_FORBIDDEN"
    assert (await put(repository, "nothinghere")).errcode == "M_NOT_FOUND"
    assert (await put(repository, media_id)).json == {}
    again = await put(repository, media_id, b"other")
    assert (again.code, again.errcode) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    reply = await repository.get(f"{DOWNLOAD}/test/{media_id}")
    assert (reply.body, reply.headers["content-type"]) == (b"late", "text/plain")


@pytest_twisted.ensureDeferred
async def test_an_announcement_expires(repository: Repository) -> None:
    media_id = await reserve(repository)
    repository.clock.advance(RESERVED_FOR_MS / 1000)
    assert (await put(repository, media_id)).errcode == "M_NOT_FOUND"


@pytest_twisted.ensureDeferred
async def test_announcements_are_limited(repository: Repository) -> None:
    for _ in range(MAX_RESERVED):
        await reserve(repository)
    reply = await repository.driver.call("POST", "/_matrix/media/v1/create", user=ALICE)
    assert (reply.code, reply.errcode) == (429, "M_LIMIT_EXCEEDED")


@pytest_twisted.ensureDeferred
async def test_a_download_waits_for_the_upload(repository: Repository) -> None:
    media_id = await reserve(repository)
    soon = await repository.get(f"{DOWNLOAD}/test/{media_id}", query={"timeout_ms": 0})
    assert (soon.code, soon.errcode) == (504, "M_NOT_YET_UPLOADED")
    waiting = Deferred.fromCoroutine(repository.get(f"{DOWNLOAD}/test/{media_id}"))
    while not repository.clock.getDelayedCalls():
        await deferToThread(lambda: None)  # until the download has asked the database and waits
    await put(repository, media_id)
    assert (await waiting).body == b"late"
    assert repository.clock.getDelayedCalls() == []


# -- thumbnails --------------------------------------------------------------------------------------------------------


def picture(width: int, height: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), (200, 10, 10, 128)[: len(mode)]).save(out, kind)
    return out.getvalue()


def test_the_size_that_suits_best() -> None:
    assert choose(1, 1, "crop") == Size(32, 32, "crop")
    assert choose(33, 1, "crop") == Size(96, 96, "crop")
    assert choose(500, 500, "crop") == Size(96, 96, "crop")
    assert choose(320, 241, "scale") == Size(640, 480, "scale")
    assert choose(9999, 9999, "scale") == Size(800, 600, "scale")


@pytest.mark.parametrize(
    ("kind", "mode", "shown"),
    [("PNG", "RGB", "image/jpeg"), ("PNG", "RGBA", "image/png"), ("JPEG", "RGB", "image/jpeg"), ("GIF", "RGB", None)],
)
@pytest_twisted.ensureDeferred
async def test_thumbnails_are_made_once_and_fit(
    repository: Repository, kind: str, mode: str, shown: str | None
) -> None:
    media_id = await repository.upload(picture(1000, 400, kind, mode), f"image/{kind.lower()}")
    for method, size in (("scale", (320, 128)), ("crop", (96, 96))):
        query = {"width": size[0], "height": size[1], "method": method}
        first = await repository.get(f"{THUMBNAIL}/test/{media_id}", query=query)
        again = await repository.get(f"{THUMBNAIL}/test/{media_id}", query=query)
        assert first.code == 200, first
        assert first.body == again.body
        assert Image.open(io.BytesIO(first.body)).size == size
        if shown:
            assert first.headers["content-type"] == shown


@pytest_twisted.ensureDeferred
async def test_a_thumbnail_is_not_larger_than_the_picture(repository: Repository) -> None:
    media_id = await repository.upload(picture(20, 10), "image/png")
    reply = await repository.get(f"{THUMBNAIL}/test/{media_id}", query={"width": 800, "height": 600})
    assert Image.open(io.BytesIO(reply.body)).size == (20, 10)


@pytest_twisted.ensureDeferred
async def test_what_is_no_picture_gets_no_thumbnail(repository: Repository) -> None:
    files = [
        (b"nothing", "image/png"),
        (picture(9, 9)[:40], "image/png"),
        (picture(9, 9), "text/plain"),
        (picture(9, 9, "BMP"), "image/png"),
        (b"", "image/png"),
    ]
    for data, kind in files:
        media_id = await repository.upload(data, kind)
        reply = await repository.get(f"{THUMBNAIL}/test/{media_id}", query={"width": 1, "height": 1})
        assert (reply.code, reply.errcode) == (400, "M_UNKNOWN")
    assert repository.leftovers() == []


@pytest_twisted.ensureDeferred
async def test_a_picture_of_too_many_pixels_is_not_decoded(repository: Repository) -> None:
    out = io.BytesIO()
    Image.new("1", (8000, 8000)).save(out, "PNG")
    media_id = await repository.upload(out.getvalue(), "image/png")
    reply = await repository.get(f"{THUMBNAIL}/test/{media_id}", query={"width": 1, "height": 1})
    assert (reply.code, reply.errcode) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({}, "M_INVALID_PARAM"),
        ({"width": 10}, "M_INVALID_PARAM"),
        ({"width": 0, "height": 10}, "M_INVALID_PARAM"),
        ({"width": -1, "height": 10}, "M_INVALID_PARAM"),
        ({"width": "ten", "height": 10}, "M_INVALID_PARAM"),
        ({"width": 10, "height": 10, "method": "stretch"}, "M_INVALID_PARAM"),
        ({"width": 10, "height": 10, "timeout_ms": "x"}, "M_INVALID_PARAM"),
        ({"width": 10, "height": 10, "animated": "perhaps"}, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_parameters_of_thumbnails(repository: Repository, query: dict[str, Any], errcode: str) -> None:
    reply = await repository.get(f"{THUMBNAIL}/test/nothinghere", query=query)
    assert (reply.code, reply.errcode) == (400, errcode)


# -- administrators ----------------------------------------------------------------------------------------------------


def mention(txn: Transaction, content: str) -> None:
    txn.execute(
        """
        INSERT INTO events (stream_ordering, event_id, room_id, depth, type, sender, origin_server_ts, received_ts,
            contains_url, json) VALUES (1, '$1', '!r:test', 1, 'm.room.message', '@a:test', 1, 1, true, %s)
        """,
        (content,),
    )


@pytest_twisted.ensureDeferred
async def test_quarantined_files_are_not_served(repository: Repository, database: Database) -> None:
    media_id = await repository.upload(b"x")
    content = {"url": f"mxc://test/{media_id}", "info": {"thumbnail_url": "mxc://far/abcdef"}}
    await database.write("test", mention, json.dumps({"content": content}))
    admin = repository.driver.call
    listed = await admin("GET", "/_synapse/admin/v1/room/!r:test/media", user=ADMIN)
    assert listed.json == {"local": [f"mxc://test/{media_id}"], "remote": ["mxc://far/abcdef"]}
    path = "/_synapse/admin/v1/quarantine_media/!r:test"
    assert (await admin("POST", path, {}, user=ALICE)).errcode == "M_FORBIDDEN"
    assert (await admin("POST", path, {}, user=ADMIN)).json == {"num_quarantined": 1}
    assert (await admin("POST", path, {}, user=ADMIN)).json == {"num_quarantined": 0}
    assert (await repository.get(f"{DOWNLOAD}/test/{media_id}")).errcode == "M_NOT_FOUND"


@pytest_twisted.ensureDeferred
async def test_old_copies_are_purged(repository: Repository, database: Database) -> None:
    def insert(txn: Transaction) -> None:
        txn.execute("INSERT INTO remote_media VALUES ('far', 'x', 'text/plain', 1, NULL, 5, 5, 'abcdefg', NULL)")

    await database.write("test", insert)
    copy = repository.root / "remote_content" / "ab" / "cd" / "efg"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"x")
    path = "/_synapse/admin/v1/purge_media_cache"
    assert (await repository.driver.call("POST", path, {}, user=ADMIN)).errcode == "M_MISSING_PARAM"
    reply = await repository.driver.call("POST", path, {}, user=ADMIN, query={"before_ts": 6})
    assert reply.json == {"deleted": 1}
    assert not copy.exists()


@pytest_twisted.ensureDeferred
async def test_what_was_never_finished_is_tidied_away(repository: Repository, database: Database) -> None:
    media_id = await reserve(repository)
    done = await repository.upload(b"x")
    left = repository.root / "incoming" / "left"
    left.write_bytes(b"half")
    os.utime(left, (repository.clock.seconds(),) * 2)
    store = MediaStore(database)
    upkeep = MediaUpkeep(store, FileStore(str(repository.root)), deferToThread, repository.clock)
    await upkeep.begin()
    assert await store.get_local(media_id) is not None
    assert left.exists()
    await upkeep.end()
    repository.clock.advance(RESERVED_FOR_MS / 1000 + 1)
    await upkeep.tidy()
    assert await store.get_local(media_id) is None
    assert not left.exists()
    assert await store.get_local(done) is not None


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_unfinished_files_are_swept(tmp_path: Path) -> None:
    files = FileStore(str(tmp_path))
    assert files.sweep(2e9) == 0
    left = files.begin()
    left.write(b"x")
    assert files.sweep(os.stat(left.path).st_mtime) == 0
    assert files.sweep(os.stat(left.path).st_mtime + 1) == 1
    left.discard()


@pytest.mark.parametrize("name", ["", "..", "a/b/c/d/e", "abcde", "abc def", "a" * 256, "abcdef\n"])
def test_names_that_are_no_media_ids(name: str, tmp_path: Path) -> None:
    assert not is_media_id(name)
    with pytest.raises(ValueError, match="media id"):
        FileStore(str(tmp_path)).local(name)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, "application/octet-stream"),
        ("", "application/octet-stream"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml"),
        ("no type", "application/octet-stream"),
        ("text/html\r\nX: y", "application/octet-stream"),
        ("a/" + "b" * 300, "application/octet-stream"),
    ],
)
def test_types_that_are_kept(given: str | None, kept: str) -> None:
    assert checked_type(given) == kept


def test_names_that_are_kept() -> None:
    assert checked_name(None) is checked_name("") is checked_name("\r\n\0") is None
    assert checked_name("a\r\nSet-Cookie: x") == "aSet-Cookie: x"
    assert len(checked_name("x" * 1000) or "") == 255


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("image/png", None, "inline"),
        ("IMAGE/PNG; x=y", "a b.png", 'inline; filename="a b.png"'),
        ("image/svg+xml", "a.svg", 'attachment; filename="a.svg"'),
        ("text/html", 'a"b;c', "attachment; filename*=utf-8''a%22b%3Bc"),
    ],
)
def test_only_harmless_types_are_shown_inline(kind: str, name: str | None, expected: str) -> None:
    assert disposition(kind, name) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 9)),
        ("bytes=3-5", (3, 5)),
        ("bytes=3-100", (3, 9)),
        ("bytes=-4", (6, 9)),
        ("bytes=-400", (0, 9)),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("items=1-2", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=5-3", "bytes=-0"])
def test_ranges_outside_the_file(header: str) -> None:
    with pytest.raises(ValueError, match="beyond"):
        byte_range(header, 10)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, []),
        ({"url": 5, "info": [], "file": "x"}, []),
        ({"url": "mxc://a/../b"}, []),
        ({"url": "https://a/abcdef"}, []),
        ({"file": {"url": "mxc://a/abcdef"}}, [("a", "abcdef")]),
        ({"avatar_url": "mxc://a:80/abcdef"}, [("a:80", "abcdef")]),
        ({"info": {"thumbnail_file": {"url": "mxc://a/abcdef"}}}, [("a", "abcdef")]),
    ],
)
def test_media_that_an_event_shows(content: object, found: list[tuple[str, str]]) -> None:
    assert media_in(content) == found
