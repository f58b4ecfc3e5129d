//! Folders as repositories on the hub: the list of files, and each file with its hash, in ranges.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ddpo_torch::weights::{read_all, save};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

/// How a server serves.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// As the hub does.
    Good,
    /// Everything is refused.
    Gated,
    /// One file comes with a byte changed.
    Damaged(&'static str),
    /// One file is not there.
    Without(&'static str),
}

struct Served {
    repositories: Vec<Repository>,
    behaviour: Behaviour,
    n_requests: AtomicUsize,
}

struct Repository {
    root: PathBuf,
    id: String,
    revision: String,
}

/// A server that lives as long as this value, and its thread a little longer.
pub struct HubServer {
    endpoint: String,
    served: Arc<Served>,
}

impl HubServer {
    /// Serves a folder under a name at one revision.
    pub fn of(root: &Path, id: &str, revision: &str, behaviour: Behaviour) -> Self {
        Self::of_all(&[(root, id, revision)], behaviour)
    }

    /// Serves folders, each under a name at one revision.
    pub fn of_all(repositories: &[(&Path, &str, &str)], behaviour: Behaviour) -> Self {
        let repository = |(root, id, revision): &(&Path, &str, &str)| Repository {
            root: (*root).to_owned(),
            id: (*id).to_owned(),
            revision: (*revision).to_owned(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let served = Arc::new(Served {
            repositories: repositories.iter().map(repository).collect(),
            behaviour,
            n_requests: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Nobody asks any more: the test is over, and the port is closed with this thread.
                let Some(served) = weak.upgrade() else { return };
                std::thread::spawn(move || served.answer(stream));
            }
        });
        Self { endpoint, served }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn n_requests(&self) -> usize {
        self.served.n_requests.load(Ordering::SeqCst)
    }
}

impl Served {
    /// One request a connection.
    fn answer(&self, stream: TcpStream) {
        self.n_requests.fetch_add(1, Ordering::SeqCst);
        let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
        let Some(Ok(request)) = lines.next() else {
            return;
        };
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut range = None;
        for line in lines
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
        {
            if let Some(asked) = line.to_lowercase().strip_prefix("range: bytes=") {
                range = Some(asked.to_owned());
            }
        }
        let response = self.response(&path, range.as_deref());
        // A client that has gone away needs no answer.
        let _ = (&stream).write_all(&response);
    }

    fn response(&self, path: &str, range: Option<&str>) -> Vec<u8> {
        if matches!(self.behaviour, Behaviour::Gated) {
            return whole("401 Unauthorized", &[], b"");
        }
        for repository in &self.repositories {
            let Repository { id, revision, .. } = repository;
            if path == format!("/api/models/{id}/revision/{revision}?blobs=true") {
                let json = ["content-type: application/json".into()];
                let listing = repository.listing(self.behaviour);
                return whole("200 OK", &json, listing.as_bytes());
            }
            let file = path.strip_prefix(&format!("/{id}/resolve/{revision}/"));
            if let (Some(file), Some(range)) = (file, range)
                && repository.files(self.behaviour).iter().any(|f| f == file)
            {
                return repository.part(file, range, self.behaviour);
            }
        }
        whole("404 Not Found", &[], b"")
    }
}

/// Whether the hub stores a file apart and knows its hash.
fn is_large(file: &str) -> bool {
    [".safetensors", ".bin", ".pt", ".pth"]
        .iter()
        .any(|ending| file.ends_with(ending))
}

impl Repository {
    fn part(&self, file: &str, range: &str, behaviour: Behaviour) -> Vec<u8> {
        let mut bytes = fs::read(self.root.join(file)).expect("a file");
        let hash = sha256(&bytes);
        if matches!(behaviour, Behaviour::Damaged(damaged) if damaged == file) {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let last = bytes.len() - 1;
        let start: usize = start.parse().expect("a number");
        let end = end.parse().unwrap_or(last).min(last);
        let etag = match is_large(file) {
            true => hash,
            // The hub gives of small files a hash of another kind.
            false => hash[..40].to_owned(),
        };
        let headers = [
            format!("content-range: bytes {start}-{end}/{}", bytes.len()),
            format!("etag: \"{etag}\""),
            format!("x-repo-commit: {}", self.revision),
        ];
        whole("206 Partial Content", &headers, &bytes[start..=end])
    }

    fn files(&self, behaviour: Behaviour) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let inside = path.strip_prefix(&self.root).expect("it is inside");
                        files.push(inside.display().to_string());
                    }
                }
            }
        }
        if let Behaviour::Without(gone) = behaviour {
            files.retain(|file| file != gone);
        }
        files
    }

    fn listing(&self, behaviour: Behaviour) -> String {
        let one = |file: &String| {
            let bytes = fs::read(self.root.join(file)).expect("a file");
            let size = bytes.len();
            let lfs = match is_large(file) {
                true => format!(
                    r#","lfs":{{"sha256":"{}","size":{size},"pointerSize":134}}"#,
                    sha256(&bytes)
                ),
                false => String::new(),
            };
            format!(r#"{{"rfilename":"{file}","size":{size}{lfs}}}"#)
        };
        let siblings: Vec<String> = self.files(behaviour).iter().map(one).collect();
        format!(
            r#"{{"sha":"{}","siblings":[{}]}}"#,
            self.revision,
            siblings.join(",")
        )
    }
}

fn whole(status: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for header in headers {
        head += header;
        head += "\r\n";
    }
    [format!("{head}\r\n").as_bytes(), body].concat()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Writes a file's weights in f16.
pub fn halve(from: &Path, to: &Path) {
    let half = read_all(from).expect("weights").into_iter();
    let half: BTreeMap<String, Tensor> = half.map(|(n, t)| (n, t.to_kind(Kind::Half))).collect();
    save(to, half.iter().map(|(n, t)| (n.as_str(), t))).expect("a file");
}

/// Spreads the weights of a component over two files with an index, as diffusers' `max_shard_size` does.
pub fn shard(folder: &Path, stem: &str) {
    let file = folder.join(format!("{stem}.safetensors"));
    let all: Vec<(String, Tensor)> = read_all(&file).expect("weights").into_iter().collect();
    let mut entries = Vec::new();
    for (i, part) in all.chunks(all.len().div_ceil(2)).enumerate() {
        let name = format!("{stem}-{:05}-of-00002.safetensors", i + 1);
        save(
            &folder.join(&name),
            part.iter().map(|(n, t)| (n.as_str(), t)),
        )
        .expect("a file");
        entries.extend(part.iter().map(|(n, _)| format!("\"{n}\": \"{name}\"")));
    }
    let index = format!(
        "{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}",
        entries.join(", ")
    );
    fs::write(folder.join(format!("{stem}.safetensors.index.json")), index).expect("a file");
    fs::remove_file(file).expect("a file");
}
