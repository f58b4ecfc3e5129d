//! A chat server that fails on demand.
//!
//! It speaks as much of OpenAI's protocol as the client needs, on raw sockets, since most of its faults are none
//! that a library for servers would commit. A test gives it a function from a request to a [`Reply`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What a request asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// How many came before.
    pub number: usize,
    /// The text beside the image.
    pub question: String,
    /// The image as a `data:` address.
    pub image: String,
    /// When it came.
    pub at: Instant,
}

impl Asked {
    /// A number that only the image decides.
    pub fn hash(&self) -> u32 {
        crc32fast::hash(self.image.as_bytes())
    }
}

/// What the server does about a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The model's words.
    Says(String),
    /// A status that is no success, with more headers.
    Status(u16, &'static str),
    /// Success, with this for a body.
    Body(String),
    /// Nothing, for as long as the client waits.
    Hangs,
    /// A body that is announced longer than it is.
    Truncated,
    /// An answer, a byte every so often.
    Drips(Duration),
    /// The connection ends with no answer, and no other is accepted any more.
    Dies,
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Shared {
    script: Box<Script>,
    latency: Duration,
    asked: Mutex<Vec<(Asked, Reply)>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    stop: AtomicBool,
}

/// A server on a port of this machine; gone with this value.
pub struct ChatServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ChatServer {
    /// On any free port.
    pub fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(0, Duration::ZERO, script)
    }

    /// On a port that is known, each answer after so long.
    pub fn start_at(
        port: u16,
        latency: Duration,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            latency,
            asked: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let (address, for_thread) = (
            listener.local_addr().expect("an address"),
            Arc::clone(&shared),
        );
        let thread = std::thread::spawn(move || accept(&listener, &for_thread));
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// A port that nobody listens at.
    pub fn unused_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address").port()
    }

    /// For `reward.vlm.url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All requests so far with what became of them, in the order of their replies.
    pub fn asked(&self) -> Vec<(Asked, Reply)> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    /// The most requests that were being answered at one time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for ChatServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; it may have ended by itself.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            // A client that has gone away, or sends nothing, needs no answer.
            let _ = serve(&stream, &shared);
            if shared.stop.load(Ordering::SeqCst) {
                let _ = TcpStream::connect(address);
            }
        });
    }
}

/// Requests of one connection, until it is closed.
fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(body) = read_request(&mut reader)? {
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let reply = decide(shared, &body);
        std::thread::sleep(shared.latency);
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !answer(stream, shared, &reply)? {
            return Ok(());
        }
    }
    Ok(())
}

fn decide(shared: &Shared, body: &[u8]) -> Reply {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let content = &body["messages"][0]["content"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = shared.asked.lock().expect("no panic");
    let asked = Asked {
        number: all.len(),
        question: text(&content[1]["text"]),
        image: text(&content[0]["image_url"]["url"]),
        at: Instant::now(),
    };
    let reply = (shared.script)(&asked);
    all.push((asked, reply.clone()));
    reply
}

/// The body of the next request, none at the end.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let (mut length, mut n_lines) = (0, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        n_lines += 1;
        let line = line.trim().to_lowercase();
        if line.is_empty() && n_lines > 1 {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(body))
}

/// Whether the connection goes on.
fn answer(mut stream: &TcpStream, shared: &Shared, reply: &Reply) -> std::io::Result<bool> {
    match reply {
        Reply::Says(text) => stream.write_all(&response(200, "", &says(text)))?,
        Reply::Status(status, headers) => {
            stream.write_all(&response(*status, headers, "{\"error\": \"on demand\"}"))?;
        }
        Reply::Body(body) => stream.write_all(&response(200, "", body))?,
        Reply::Truncated => {
            let whole = response(200, "", &says("a cat"));
            stream.write_all(&whole[..whole.len() - 10])?;
            return Ok(false);
        }
        Reply::Hangs => {
            // Ends when the client closes, or with the server.
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            while !shared.stop.load(Ordering::SeqCst) {
                match stream.read(&mut [0]) {
                    Err(error) if is_timeout(&error) => {}
                    _ => return Ok(false),
                }
            }
            return Ok(false);
        }
        Reply::Drips(pause) => {
            for byte in response(200, "", &says("yes, I think that it is one")) {
                stream.write_all(&[byte])?;
                std::thread::sleep(*pause);
            }
        }
        Reply::Dies => {
            shared.stop.store(true, Ordering::SeqCst);
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

/// A body as OpenAI's: `choices[0].message.content`.
pub fn says(text: &str) -> String {
    let message = json!({ "role": "assistant", "content": text });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    json!({ "id": "1", "object": "chat.completion", "choices": [choice] }).to_string()
}

fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} On Demand\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}
