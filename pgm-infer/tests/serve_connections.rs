//! Connections of the server: how many are open, how long they may be silent, and how they end.
#![cfg(all(feature = "flex", feature = "server"))]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use pgm_infer::serve::{ConnectionLimits, Limits, ServerPhase, router, serve_connections};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

mod common;
use common::http::server;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);
/// What nothing in a test should need.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(app: Router, limits: ConnectionLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let until = async {
            let _ = stopped.await;
        };
        Self { address, stop, serving: tokio::spawn(serve_connections(listener, app, limits, until)) }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    }

    fn asks(&self, text: &str) -> TcpStream {
        let mut connection = self.connect();
        connection.write_all(text.as_bytes()).unwrap();
        connection
    }

    // The server ends although its timeouts are long.
    async fn ends(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the server does not end").unwrap();
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits { max: 64, header_timeout: NEVER, idle_timeout: NEVER, write_timeout: NEVER }
}

// Answers at once at /, and at /slow when it is told to.
fn app() -> (Router, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let slow = move || {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            "slow"
        }
    };
    (Router::new().route("/", get(|| async { "quick" })).route("/slow", get(slow)), go_on)
}

const QUICK: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

// Reads to the end of the text, and leaves the connection open.
fn read_until(connection: &mut TcpStream, end: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(end.as_bytes()) {
        assert_eq!(connection.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

// What is left until the server closes the connection.
fn rest(connection: &mut TcpStream) -> String {
    let mut text = String::new();
    match connection.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => text,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_do_not_hold_up_the_end_and_running_requests_are_finished() {
    let (app, go_on) = app();
    let running = Running::start(app, limits()).await;
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..5 {
        silent.push(running.connect());
        silent.push(running.asks("GET / HTTP/1.1\r\nHo"));
        silent.push(running.asks("P"));
        let mut kept = running.asks(QUICK);
        read_until(&mut kept, "quick");
        silent.push(kept);
        let mut second = running.asks(QUICK);
        read_until(&mut second, "quick");
        second.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        silent.push(second);
    }
    let mut slow = running.asks(SLOW);
    // A request after them is answered, so all of them have been accepted; the slow one runs when it has been read.
    read_until(&mut running.asks(QUICK), "quick");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let Running { address, stop, serving } = running;
    stop.send(()).unwrap();
    for connection in &mut silent {
        assert_eq!(rest(connection), "");
    }
    assert!(!serving.is_finished(), "a request is running");
    assert!(TcpStream::connect(address).is_err(), "no new connection is accepted");
    go_on.notify_one();
    let answer = rest(&mut slow);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("slow"), "{answer}");
    tokio::time::timeout(PATIENCE, serving).await.expect("the server does not end").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_a_large_answer_loses_its_connection() {
    let app =
        Router::new().route("/", get(|| async { "quick" })).route("/large", get(|| async { "x".repeat(64 << 20) }));
    let limits = ConnectionLimits { max: 1, write_timeout: Duration::from_secs(2), ..limits() };
    let running = Running::start(app, limits).await;
    let mut unread = running.asks("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // There is one place only, so this is answered when the first connection is closed.
    read_until(&mut running.asks(QUICK), "quick");
    let mut taken = Vec::new();
    let _ = unread.read_to_end(&mut taken);
    assert!(taken.len() < 64 << 20, "all of it was sent");

    // One that reads slowly, but reads, gets everything.
    let mut slow = running.asks("GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (mut n_read, mut part) = (0, vec![0; 4 << 20]);
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        match slow.read(&mut part).unwrap() {
            0 => break,
            n => n_read += n,
        }
    }
    assert!(n_read > 64 << 20, "{n_read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_end_closes_its_connection_only() {
    let running =
        Running::start(app().0, ConnectionLimits { header_timeout: Duration::from_millis(100), ..limits() }).await;
    let mut kept = running.asks(QUICK);
    read_until(&mut kept, "quick");
    for beginning in ["", "GET / HTTP/1.1\r\nHost:"] {
        assert_eq!(rest(&mut running.asks(beginning)), "", "{beginning:?}");
    }
    // A connection may be idle for longer.
    kept.write_all(QUICK.as_bytes()).unwrap();
    read_until(&mut kept, "quick");
    // The next header counts, too.
    kept.write_all(b"GET").unwrap();
    assert_eq!(rest(&mut kept), "");
    running.stop.send(()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_a_request_may_take_longer() {
    let (app, go_on) = app();
    let running = Running::start(app, ConnectionLimits { idle_timeout: Duration::from_millis(100), ..limits() }).await;
    let mut slow = running.asks(SLOW);
    let mut idle = running.asks(QUICK);
    read_until(&mut idle, "quick");
    assert_eq!(rest(&mut idle), "");
    go_on.notify_one();
    let answer = rest(&mut slow);
    assert!(answer.ends_with("slow"), "{answer}");
    running.stop.send(()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn further_connections_wait_until_one_ends() {
    let running = Running::start(app().0, ConnectionLimits { max: 2, ..limits() }).await;
    let mut open: Vec<TcpStream> = (0..2).map(|_| running.asks(QUICK)).collect();
    open.iter_mut().for_each(|connection| _ = read_until(connection, "quick"));
    let mut third = running.asks(QUICK);
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "there is no place for a third connection");
    drop(open.pop());
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    read_until(&mut third, "quick");
    running.stop.send(()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_body_does_not_hold_up_the_end() {
    let server = server(Limits::default(), &[]);
    let running = Running::start(router(&server), limits()).await;
    let mut half = running.asks(
        "POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    );
    read_until(&mut running.asks("GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"), "}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.set_phase(ServerPhase::Draining);
    let answer = read_until(&mut half, "}}");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"stopping\""), "{answer}");
    let Running { stop, serving, address } = running;
    stop.send(()).unwrap();
    Running { stop: oneshot::channel().0, serving, address }.ends().await;
}
