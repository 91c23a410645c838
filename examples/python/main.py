"""A homeserver that registers an appservice, submits a room's life and watches it being delivered. See README.md."""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, os.environ.get("EXAMPLE_GEN", str(Path(__file__).parent / "gen")))

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from matrix.appservice.v1 import appservice_admin_service_pb2 as admin_pb
from matrix.appservice.v1 import appservice_admin_service_pb2_grpc as admin_grpc
from matrix.appservice.v1 import appservice_router_service_pb2 as router_pb
from matrix.appservice.v1 import appservice_router_service_pb2_grpc as router_grpc
from matrix.appservice.v1 import event_pb2

ATTEMPTS_MAX = 5
CALL_TIMEOUT_S = 10
DELIVERY_TIMEOUT_S = 20
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


def detail(error, kind):
    """The detail of an error that is a message of this kind, or an empty one."""
    status = rpc_status.from_call(error)
    found = kind()
    for any_detail in status.details if status else []:
        if any_detail.Is(kind.DESCRIPTOR):
            any_detail.Unpack(found)
    return found


def retried(call, request, metadata):
    """Repeats a call while the router cannot take it. Stream positions make a repeated submission a duplicate."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return call(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            if attempt == ATTEMPTS_MAX or error.code() not in RETRIED:
                raise
            delay_s = detail(error, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() or 1
            print(f"{error.code().name}: again in {delay_s * 1000:.0f} ms")
            time.sleep(delay_s)


def refused(call, request, metadata):
    """The error of a call that must not succeed."""
    try:
        call(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
    except grpc.RpcError as error:
        return error
    raise SystemExit("FAILED: the router took what it has to refuse")


received = []


class Appservice(BaseHTTPRequestHandler):
    """The other side: takes transactions and says so with 200. It would also remember their ids."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        received.extend(event["event_id"] for event in body["events"])
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def token(name):
    if name not in os.environ:
        raise SystemExit(f"Set {name}; the router's first start wrote it to data/credentials.json.")
    return (("authorization", f"Bearer {os.environ[name]}"),)


def main():
    operator, homeserver = token("ROUTER_ADMIN_TOKEN"), token("ROUTER_HOMESERVER_TOKEN")
    channel = grpc.insecure_channel(os.environ.get("ROUTER_ADDRESS", "127.0.0.1:50051"))
    admin, router = admin_grpc.AppserviceAdminStub(channel), router_grpc.AppserviceRouterStub(channel)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Appservice)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    yaml = f"""
id: example-python
url: http://127.0.0.1:{server.server_port}
as_token: example-secret-that-the-appservice-sends-py
hs_token: example-secret-that-the-router-sends-py
sender_localpart: example-python
rate_limited: false
namespaces:
  aliases:
    - regex: "#example_.*"
      exclusive: true
"""
    put = admin.PutRegistration(admin_pb.PutRegistrationRequest(yaml=yaml), metadata=operator, timeout=CALL_TIMEOUT_S)
    print("registered", put.registration.id, *(warning.code for warning in put.warnings))

    # The watch begins before the first event, so that it misses none.
    watch = admin.WatchEvents(admin_pb.WatchEventsRequest(appservice_ids=["example-python"]), metadata=operator)
    delivered = []

    def watching():
        try:
            for told in watch:
                if told.WhichOneof("event") == "events_delivered":
                    delivered.append(told.events_delivered.event_count)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                raise

    watcher = threading.Thread(target=watching)
    watcher.start()

    run = int(time.time() * 1000)
    room_id = f"!py{run}:localhost"
    life = [
        {"type": "m.room.create", "state_key": "", "content": {"room_version": "11"}},
        {"type": "m.room.member", "state_key": "@alice:localhost", "content": {"membership": "join"}},
        *({"type": "m.room.message", "content": {"msgtype": "m.text", "body": body}} for body in ("Hello", "Anybody here?", "Bye")),
    ]
    ids = [f"$py{run}-{at}" for at in range(len(life))]
    common = {"room_id": room_id, "sender": "@alice:localhost", "origin_server_ts": run}
    context = event_pb2.RoomContext(room_id=room_id, local_members={"user_ids": []}, local_aliases={"room_aliases": ["#example_tea:localhost"]})
    submission = router_pb.SubmitEventsRequest(
        # A stream of its own, so that the example can be run again on the same router.
        stream=f"py-{run}",
        rooms=[context],
        events=[event_pb2.Event(json=json.dumps({"event_id": ids[at], **common, **event}).encode(), stream_position=at + 1) for at, event in enumerate(life)],
    )
    first = retried(router.SubmitEvents, submission, homeserver)
    print(f"submitted: {first.accepted} accepted, {first.routed} routed, stream position {first.stream_position}")
    second = retried(router.SubmitEvents, submission, homeserver)
    print(f"submitted again: {second.duplicates} duplicates")

    claim = router.CheckNamespace(router_pb.CheckNamespaceRequest(room_alias="#example_tea:localhost"), metadata=homeserver, timeout=CALL_TIMEOUT_S)
    print(f"#example_tea:localhost is claimed by {', '.join(claim.exclusive_appservice_ids)}, exclusively: {claim.exclusive}")
    asked = router_pb.AuthorizeIdentifierRequest(room_alias="#example_new:localhost", action=router_pb.AuthorizeIdentifierRequest.ACTION_CREATE, person_user_id="@alice:localhost")
    refusal = detail(refused(router.AuthorizeIdentifier, asked, homeserver), error_details_pb2.ErrorInfo)
    print(f"@alice:localhost may not create #example_new:localhost: {refusal.reason}, answer {refusal.metadata['http_status']} {refusal.metadata['errcode']}")
    error = refused(router.SubmitEvents, router_pb.SubmitEventsRequest(events=[event_pb2.Event(json=b'{"type": 7}')]), homeserver)
    malformed = detail(error, error_details_pb2.BadRequest).field_violations[0]
    print(f"an event that is none: {malformed.field}: {malformed.description}")

    until = time.monotonic() + DELIVERY_TIMEOUT_S
    while (len(received) < len(life) or sum(delivered) < len(life)) and time.monotonic() < until:
        time.sleep(0.02)
    watch.cancel()
    watcher.join()
    server.shutdown()
    complete = received == ids and second.duplicates == len(life) and refusal.reason == "APPSERVICE_NAMESPACE_CONFLICT" and malformed.field == "events[0].json"
    print(f"{'done' if complete else 'FAILED'}: {len(received)} of {len(life)} events received in order, {sum(delivered)} seen delivered, {second.duplicates} duplicates recognised")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
