//! The other side: it takes transactions and says so with 200, and takes none twice.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::put;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const HS_TOKEN: &str = "example-secret-that-the-router-sends-rust";

#[derive(Default)]
struct Taken {
    txn_ids: HashSet<String>,
    event_ids: Vec<String>,
}

pub struct Appservice {
    port: u16,
    taken: Arc<Mutex<Taken>>,
}

impl Appservice {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let taken = Arc::<Mutex<Taken>>::default();
        let service = Router::new()
            .route("/_matrix/app/v1/transactions/{txn_id}", put(transaction))
            .with_state(taken.clone());
        tokio::spawn(async { axum::serve(listener, service).await });
        Ok(Self { port, taken })
    }

    /// Ids of events in the order in which they were taken.
    pub fn received(&self) -> Vec<String> {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .event_ids
            .clone()
    }

    pub fn registration(&self) -> String {
        format!(
            r##"id: example-rust
url: http://127.0.0.1:{}
as_token: example-secret-that-the-appservice-sends-rust
hs_token: {HS_TOKEN}
sender_localpart: example-rust
rate_limited: false
namespaces:
  aliases:
    - regex: "#example_.*:localhost"
      exclusive: true
"##,
            self.port
        )
    }
}

async fn transaction(
    State(taken): State<Arc<Mutex<Taken>>>,
    Path(txn_id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let shown = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if shown != Some(&format!("Bearer {HS_TOKEN}")) {
        return (
            StatusCode::FORBIDDEN,
            Json(json!({"errcode": "M_FORBIDDEN"})),
        );
    }
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.txn_ids.insert(txn_id) {
        let events = body["events"].as_array().into_iter().flatten();
        taken.event_ids.extend(
            events
                .filter_map(|event| event["event_id"].as_str())
                .map(String::from),
        );
    }
    (StatusCode::OK, Json(json!({})))
}
