"""Two real clients, matrix-nio and matrix-js-sdk, hold a conversation through nginx and all eleven kinds of process."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path

from nio import ReceiptEvent, RoomMessageImage, TypingNoticeEvent, UploadResponse
from PIL import Image

from synapse.api.routes import ENDPOINTS, find
from tests.clients.js import JsClient, install
from tests.clients.nio import NioClient
from tests.support.cluster import Cluster

NAMES = {endpoint.name for endpoint in ENDPOINTS}
WHOLE_CAST = {"homeserver", "synchrotron", "event_creator", "client_reader", "media_repository"}


def _image() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 48), 90).save(stream, "PNG")
    return stream.getvalue()


async def _meet(js: JsClient, nio: NioClient) -> str:
    """Both register, the JavaScript client creates a room and invites, the other joins; answers the room."""
    await js.do("register", username="julia", password="a long password")
    await nio.register("another long password")
    await js.do("start")
    nio.start()
    room = str((await js.do("createRoom", preset="private_chat", name="Talk"))["room_id"])
    await js.do("invite", room=room, user=nio.nio.user_id)
    await nio.until(lambda: room in nio.invites(), "the invitation")
    await nio.nio.join(room)
    await nio.until(lambda: room in nio.nio.rooms, "the room that it joined")
    return room


async def _talk(js: JsClient, nio: NioClient, room: str) -> None:
    """Ten messages each way, in turn; both see all of them in order."""
    said = []
    for i in range(10):
        await js.do("send", room=room, body=f"js {i}", txn=f"m{i}")
        await nio.nio.room_send(room, "m.room.message", {"msgtype": "m.text", "body": f"nio {i}"})
        said += [f"js {i}", f"nio {i}"]
    await nio.until(lambda: len(nio.messages(room)) >= 20, "all messages")
    await js.until(lambda _: len(js.messages(room)) >= 20, "all messages")
    assert [m.source["content"]["body"] for m in nio.messages(room)] == said
    assert [m["content"]["body"] for m in js.messages(room)] == said


async def _show_presence_of_mind(js: JsClient, nio: NioClient, room: str) -> None:
    """Typing and read receipts show on the other side."""
    me, other = nio.nio.user_id, js.messages(room)[0]["sender"]
    await nio.nio.room_typing(room, True)
    await js.until(
        lambda events: any(e["event"] == "typing" and e["user"] == me and e["typing"] for e in events), "typing"
    )
    await js.do("typing", room=room, typing=True)
    await nio.until(
        lambda: any(isinstance(e, TypingNoticeEvent) and other in e.users for e in nio.ephemeral(room)), "typing"
    )
    last = js.messages(room)[-1]["id"]
    await nio.nio.room_read_markers(room, last, last)
    await js.until(
        lambda events: any(
            e["event"] == "receipt" and me in e["content"].get(last, {}).get("m.read", {}) for e in events
        ),
        "the receipt",
    )
    await js.do("read", room=room, eventId=last)
    await nio.until(
        lambda: any(
            r.user_id == other and r.event_id == last
            for e in nio.ephemeral(room)
            if isinstance(e, ReceiptEvent)
            for r in e.receipts
        ),
        "the receipt",
    )


async def _exchange_images(js: JsClient, nio: NioClient, room: str) -> None:
    """An image each way; what is fetched is what was sent, byte for byte."""
    first, second = _image(), _image()
    uploaded = await js.do("upload", base64=base64.b64encode(first).decode(), type="image/png", name="one.png")
    await js.do("sendImage", room=room, url=uploaded["content_uri"], body="one.png", info={"mimetype": "image/png"})
    await nio.until(lambda: isinstance(nio.messages(room)[-1], RoomMessageImage), "the image")
    fetched = await nio.nio.download(mxc=nio.messages(room)[-1].source["content"]["url"])
    assert fetched.body == first

    answer, _ = await nio.nio.upload(
        io.BytesIO(second), content_type="image/png", filename="two.png", filesize=len(second)
    )
    assert isinstance(answer, UploadResponse), answer
    content = {"msgtype": "m.image", "url": answer.content_uri, "body": "two.png"}
    await nio.nio.room_send(room, "m.room.message", content)
    await js.until(lambda _: js.messages(room)[-1]["content"].get("url") == answer.content_uri, "the image")
    downloaded = await js.do("download", url=answer.content_uri)
    assert base64.b64decode(downloaded["base64"]) == second
    assert downloaded["type"] == "image/png"


async def _converse(url: str, script: Path) -> None:
    js, nio = await JsClient.spawn(script, url), NioClient(url, "nils")
    try:
        room = await _meet(js, nio)
        await _talk(js, nio, room)
        await _show_presence_of_mind(js, nio, room)
        await _exchange_images(js, nio, room)
    finally:
        await js.stop()
        await nio.stop()


def test_conversation(cluster: Cluster, js_cache: Path) -> None:
    before = cluster.requests_served()
    asyncio.run(_converse(cluster.url, install(js_cache)))

    served_by: dict[tuple[str, str], set[str]] = {}
    for (process, endpoint, method), count in (cluster.requests_served() - before).items():
        if count and endpoint in NAMES and find(endpoint).resource in {"client", "media"}:
            served_by.setdefault((endpoint, method), set()).add(cluster.processes[process].app)
    for (endpoint, method), apps in served_by.items():
        assert apps == {cluster.expected_app(endpoint, method)}, f"{method} {endpoint} was served by {apps}"
    assert {app for apps in served_by.values() for app in apps} >= WHOLE_CAST
