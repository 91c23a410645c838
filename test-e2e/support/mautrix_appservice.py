"""An appservice on mautrix that provisions whatever it is asked for, and writes down what it gets, a JSON line each.

Usage: mautrix_appservice.py HOMESERVER_URL SERVER_NAME REGISTRATION PORT RECORD_FILE
"""

import asyncio
import json
import sys

import yaml
from mautrix.appservice import AppService
from mautrix.appservice.state_store import ASStateStore
from mautrix.client.state_store import MemoryStateStore
from mautrix.types import RoomCreatePreset


class MemoryASStateStore(ASStateStore, MemoryStateStore):
    def __init__(self) -> None:
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)


async def main(homeserver_url: str, server_name: str, registration_file: str, port: str, record_file: str) -> None:
    with open(registration_file, encoding="utf-8") as file:
        registration = yaml.safe_load(file)
    record_stream = open(record_file, "a", buffering=1, encoding="utf-8")

    def record(**fields: object) -> None:
        record_stream.write(json.dumps(fields) + "\n")

    async def query_user(user_id: str) -> dict:
        record(kind="user_query", id=user_id)
        await appservice.intent.user(user_id).ensure_registered()
        return {"provisioned": True}

    async def query_alias(alias: str) -> dict:
        record(kind="alias_query", id=alias)
        await appservice.intent.create_room(
            alias_localpart=alias[1:].split(":")[0],
            name=f"the room of {alias}",
            preset=RoomCreatePreset.PUBLIC,
        )
        return {"provisioned": True}

    appservice = AppService(
        server=homeserver_url,
        domain=server_name,
        as_token=registration["as_token"],
        hs_token=registration["hs_token"],
        bot_localpart=registration["sender_localpart"],
        id=registration["id"],
        query_user=query_user,
        query_alias=query_alias,
        state_store=MemoryASStateStore(),
    )
    appservice.synchronous_handlers = True

    @appservice.matrix_event_handler
    async def on_event(event) -> None:
        body = getattr(event.content, "body", None)
        record(kind="event", id=event.event_id, type=str(event.type), body=body if isinstance(body, str) else None)
        # A ghost does as it is asked: it comes to where it is invited.
        state_key = getattr(event, "state_key", "") or ""
        if str(event.type) == "m.room.member" and str(event.content.membership) == "invite" and state_key.startswith("@ghost_"):
            await appservice.intent.user(state_key).join_room(event.room_id)

    await appservice.start("127.0.0.1", int(port))
    await appservice.intent.ensure_registered()
    record(kind="ready", id="")
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
