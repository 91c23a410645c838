//! A homeserver that registers an appservice, submits a room's life and watches it being delivered. See README.md.

mod appservice;

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt;

use appservice::Appservice;
use pb::appservice_admin_client::AppserviceAdminClient;
use pb::appservice_router_client::AppserviceRouterClient;

mod pb {
    #![allow(clippy::large_enum_variant)]
    tonic::include_proto!("matrix.appservice.v1");
}

const ATTEMPTS_MAX: u32 = 5;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const ALL_TIMEOUT: Duration = Duration::from_secs(40);
const DEFAULT_DELAY: Duration = Duration::from_secs(1);

type Failure = Box<dyn Error + Send + Sync>;
type Token = MetadataValue<Ascii>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tokio::time::timeout(ALL_TIMEOUT, run()).await?
}

async fn run() -> Result<(), Failure> {
    let operator = token("ROUTER_ADMIN_TOKEN")?;
    let homeserver = token("ROUTER_HOMESERVER_TOKEN")?;
    let address = std::env::var("ROUTER_ADDRESS").unwrap_or_else(|_| "127.0.0.1:50051".into());
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let admin = AppserviceAdminClient::new(channel.clone());
    let router = AppserviceRouterClient::new(channel);

    let bridge = Appservice::start().await?;
    let registration = pb::PutRegistrationRequest {
        source: Some(pb::put_registration_request::Source::Yaml(
            bridge.registration(),
        )),
        ..Default::default()
    };
    let put = retried(&operator, &registration, async |request| {
        admin.clone().put_registration(request).await
    })
    .await?;
    println!("registered {}", put.registration.unwrap_or_default().id);
    for warning in put.warnings {
        println!("warning {}: {}", warning.code, warning.message);
    }

    // The watch goes out before the first event and on the same connection, so it misses none.
    let watched = pb::WatchEventsRequest {
        appservice_ids: vec!["example-rust".into()],
        ..Default::default()
    };
    let watch = admin
        .clone()
        .watch_events(with_token(watched, &operator))
        .await?
        .into_inner();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (submission, ids) = room_life(&format!("rust{now_ms}"), now_ms);
    let first = retried(&homeserver, &submission, async |request| {
        router.clone().submit_events(request).await
    })
    .await?;
    println!(
        "submitted: {} accepted, {} routed, stream position {}",
        first.accepted, first.routed, first.stream_position
    );
    // As after an answer that was lost: the positions say that all of it is there already.
    let second = retried(&homeserver, &submission, async |request| {
        router.clone().submit_events(request).await
    })
    .await?;
    println!("submitted again: {} duplicates", second.duplicates);

    ask(&homeserver, &router).await?;
    let delivered = count_delivered(watch, ids.len()).await?;
    let received = bridge.received();
    if received != ids || second.duplicates as usize != ids.len() {
        return Err(format!("received {received:?}, duplicates {}", second.duplicates).into());
    }
    println!(
        "done: {} of {} events received in order, {delivered} seen delivered, {} duplicates recognised",
        received.len(),
        ids.len(),
        second.duplicates
    );
    Ok(())
}

/// Asks who claims an alias and who may create one, and shows what an error tells.
async fn ask(token: &Token, router: &AppserviceRouterClient<Channel>) -> Result<(), Failure> {
    let subject = Some(pb::check_namespace_request::Subject::RoomAlias(
        "#example_tea:localhost".into(),
    ));
    let question = pb::CheckNamespaceRequest {
        subject,
        ..Default::default()
    };
    let claim = retried(token, &question, async |request| {
        router.clone().check_namespace(request).await
    })
    .await?;
    println!(
        "#example_tea:localhost is claimed by {}, exclusively: {}",
        claim.exclusive_appservice_ids.join(", "),
        claim.exclusive
    );

    let creation = pb::AuthorizeIdentifierRequest {
        subject: Some(pb::authorize_identifier_request::Subject::RoomAlias(
            "#example_new:localhost".into(),
        )),
        action: pb::authorize_identifier_request::Action::Create.into(),
        actor: Some(pb::authorize_identifier_request::Actor::PersonUserId(
            "@alice:localhost".into(),
        )),
        ..Default::default()
    };
    let refusal = refused(
        retried(token, &creation, async |request| {
            router.clone().authorize_identifier(request).await
        })
        .await,
    )?;
    let details = refusal.get_error_details();
    match details.error_info() {
        Some(info)
            if refusal.code() == Code::PermissionDenied
                && info.reason == "APPSERVICE_NAMESPACE_CONFLICT" =>
        {
            let answer = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
            println!(
                "@alice:localhost may not create #example_new:localhost: {}, answer {} {}",
                info.reason,
                answer("http_status"),
                answer("errcode")
            );
        }
        _ => {
            return Err(
                format!("AuthorizeIdentifier was not refused as it should be: {refusal}").into(),
            );
        }
    }

    let malformed = pb::SubmitEventsRequest {
        events: vec![pb::Event {
            json: br#"{"type": 7}"#.to_vec(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let refusal = refused(
        retried(token, &malformed, async |request| {
            router.clone().submit_events(request).await
        })
        .await,
    )?;
    let details = refusal.get_error_details();
    match details
        .bad_request()
        .and_then(|request| request.field_violations.first())
    {
        Some(violation) if violation.field == "events[0].json" => println!(
            "an event that is none: {}: {}",
            violation.field, violation.description
        ),
        _ => {
            return Err(format!("SubmitEvents did not name the malformed field: {refusal}").into());
        }
    }
    Ok(())
}

/// Repeats a call while the router cannot take it, after the delay that it asks for. That is safe for submissions: their
/// stream positions make what was taken over a duplicate.
async fn retried<Message: Clone, Answer>(
    token: &Token,
    message: &Message,
    call: impl AsyncFn(Request<Message>) -> Result<Response<Answer>, Status>,
) -> Result<Answer, Status> {
    for attempt in 1.. {
        let mut request = with_token(message.clone(), token);
        request.set_timeout(CALL_TIMEOUT);
        let status = match call(request).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        if attempt == ATTEMPTS_MAX
            || !matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
        {
            return Err(status);
        }
        let told = status
            .get_error_details()
            .retry_info()
            .and_then(|info| info.retry_delay);
        let delay = told.unwrap_or(DEFAULT_DELAY);
        println!("{:?}: again in {} ms", status.code(), delay.as_millis());
        tokio::time::sleep(delay).await;
    }
    unreachable!("the last attempt returns")
}

fn refused<Answer>(outcome: Result<Answer, Status>) -> Result<Status, Failure> {
    outcome.err().ok_or_else(|| "there was no error".into())
}

fn token(name: &str) -> Result<Token, Failure> {
    let token = std::env::var(name).map_err(|_| {
        format!("set {name}; the router's first start wrote it to data/credentials.json")
    })?;
    Ok(format!("Bearer {token}").parse()?)
}

fn with_token<Message>(message: Message, token: &Token) -> Request<Message> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", token.clone());
    request
}

/// A room from its creation on, and the ids of its events. `name` makes room and stream new in every run.
fn room_life(name: &str, now_ms: u128) -> (pb::SubmitEventsRequest, Vec<String>) {
    const ALICE: &str = "@alice:localhost";
    let room_id = format!("!{name}:localhost");
    let mut life = vec![
        json!({"type": "m.room.create", "state_key": "", "content": {"room_version": "11"}}),
        json!({"type": "m.room.member", "state_key": ALICE, "content": {"membership": "join"}}),
    ];
    life.extend(["Hello", "Anybody here?", "Bye"].map(
        |body| json!({"type": "m.room.message", "content": {"msgtype": "m.text", "body": body}}),
    ));
    let ids: Vec<String> = (0..life.len()).map(|at| format!("${name}-{at}")).collect();
    let events = life
        .into_iter()
        .zip(&ids)
        .zip(1..)
        .map(|((mut event, id), stream_position)| {
            event["event_id"] = json!(id);
            event["room_id"] = json!(room_id);
            event["sender"] = json!(ALICE);
            event["origin_server_ts"] = json!(now_ms as u64);
            pb::Event {
                json: event.to_string().into_bytes(),
                stream_position,
            }
        });
    let request = pb::SubmitEventsRequest {
        stream: Some(name.into()),
        events: events.collect(),
        rooms: vec![pb::RoomContext {
            room_id: room_id.clone(),
            local_aliases: Some(pb::room_context::LocalAliases {
                room_aliases: vec!["#example_tea:localhost".into()],
            }),
            local_members: Some(pb::room_context::LocalMembers::default()),
        }],
        ..Default::default()
    };
    (request, ids)
}

/// Reads the watch until as many events are delivered.
async fn count_delivered(
    mut watch: Streaming<pb::WatchEventsResponse>,
    wanted: usize,
) -> Result<usize, Failure> {
    let mut delivered = 0;
    while delivered < wanted {
        let told = watch.message().await?.ok_or("the watch ended")?;
        if let Some(pb::watch_events_response::Event::EventsDelivered(events)) = told.event {
            delivered += events.event_count as usize;
        }
    }
    Ok(delivered)
}
