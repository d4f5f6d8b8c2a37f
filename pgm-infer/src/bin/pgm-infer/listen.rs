//! Where `pgm-infer serve` listens: a TCP address or a Unix socket; and how many connections the process may hold open.

use std::path::PathBuf;

use anyhow::{Context, bail};
use tokio::net::TcpListener;

/// Open files that the process needs beside its connections.
#[cfg(unix)]
const RESERVED_FILES: u64 = 32;

/// What `--host` names.
#[derive(Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IP address.
    Host(String),
    /// The path of a Unix socket.
    Socket(PathBuf),
}

impl Address {
    /// Reads `--host`: `unix:PATH` or a path that ends with `.sock`, else a name or an address; the brackets of an IPv6
    /// address may be there.
    pub fn parse(host: &str) -> anyhow::Result<Self> {
        if let Some(path) = host.strip_prefix("unix:").or(host.ends_with(".sock").then_some(host)) {
            if path.is_empty() {
                bail!("--host unix: lacks the path of a socket; write --host unix:/run/pgm.sock");
            }
            return Ok(Self::Socket(path.into()));
        }
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if inner.is_empty() {
            bail!("--host is empty; give a name, an address like 127.0.0.1 or ::1, or unix:PATH");
        }
        Ok(Self::Host(inner.to_string()))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open listener.
pub enum Bound {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, socket::SocketFile),
}

impl Bound {
    /// Listens. A socket gets the permissions `mode`.
    pub async fn open(address: &Address, port: u16, mode: u32) -> anyhow::Result<Self> {
        match address {
            Address::Host(host) => {
                let listener = TcpListener::bind((host.as_str(), port))
                    .await
                    .with_context(|| format!("cannot listen on --host {host} --port {port}"))?;
                Ok(Self::Tcp(listener))
            }
            #[cfg(unix)]
            Address::Socket(path) => {
                let (listener, file) = socket::bind(path, mode)?;
                Ok(Self::Unix(listener, file))
            }
            #[cfg(not(unix))]
            Address::Socket(path) => {
                bail!("--host unix:{}: this system has no Unix sockets ({mode:o})", path.display())
            }
        }
    }
}

/// Reads `--socket-mode`, permissions in octal.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "write the permissions in octal, like 600 or 660".into())
}

/// The connections that may be open at a time: `asked`, or as many as the limit of open files allows. The limit is raised
/// as far as the system lets the process raise it.
#[cfg(unix)]
pub fn open_connections(asked: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let needed = u64::try_from(asked).unwrap_or(u64::MAX).saturating_add(RESERVED_FILES);
    let limit = getrlimit(Resource::Nofile);
    let mut files = limit.current.unwrap_or(u64::MAX);
    let reachable = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if files < reachable
        && setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum: limit.maximum }).is_ok()
    {
        files = reachable;
    }
    let fits = within(asked, files);
    if fits < asked {
        tracing::warn!("the process may open {files} files, so at most {fits} connections are open at a time");
    }
    fits
}

/// As many as asked for: this system has no such limit.
#[cfg(not(unix))]
pub fn open_connections(asked: usize) -> usize {
    asked
}

// With few files half of them are left for the rest.
#[cfg(unix)]
fn within(asked: usize, files: u64) -> usize {
    let fits = files.saturating_sub(RESERVED_FILES).max(files / 4).max(1);
    asked.min(usize::try_from(fits).unwrap_or(usize::MAX))
}

#[cfg(unix)]
mod socket {
    use std::fs::{Metadata, Permissions};
    use std::io::ErrorKind;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};

    use anyhow::{Context, bail};
    use tokio::net::UnixListener;

    /// The file of a socket. Dropping it removes the file, unless another one stands there by then.
    pub struct SocketFile {
        path: PathBuf,
        file: (u64, u64),
    }

    impl Drop for SocketFile {
        fn drop(&mut self) {
            if std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.file) {
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }

    fn identity(file: &Metadata) -> (u64, u64) {
        (file.dev(), file.ino())
    }

    /// Listens at `path`. The file of a server that is gone is replaced.
    pub fn bind(path: &Path, mode: u32) -> anyhow::Result<(UnixListener, SocketFile)> {
        let shown = path.display();
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot listen on --host unix:{shown}")),
            Ok(found) if !found.file_type().is_socket() => {
                bail!("--host unix:{shown}: there is a file that is no socket; remove it, or take another path")
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => bail!("--host unix:{shown}: another program listens there; stop it, or take another path"),
                // Nobody listens: the file is left from a program that was killed.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)
                    .with_context(|| format!("--host unix:{shown}: cannot remove the old socket"))?,
                Err(error) => return Err(error).with_context(|| format!("cannot listen on --host unix:{shown}")),
            },
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on --host unix:{shown}"))?;
        let found = std::fs::symlink_metadata(path).with_context(|| format!("cannot read {shown}"))?;
        let file = SocketFile { path: path.to_path_buf(), file: identity(&found) };
        std::fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the permissions of {shown}"))?;
        Ok((listener, file))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_host_is_a_name_an_address_or_a_socket() {
        let host = |text: &str| Address::Host(text.into());
        for (text, address) in [
            ("127.0.0.1", host("127.0.0.1")),
            ("::1", host("::1")),
            ("[::1]", host("::1")),
            ("localhost", host("localhost")),
            ("unix:/run/pgm", Address::Socket("/run/pgm".into())),
            ("x.sock", Address::Socket("x.sock".into())),
        ] {
            assert_eq!(Address::parse(text).unwrap(), address, "{text}");
        }
        for text in ["", "[]", "unix:"] {
            assert!(Address::parse(text).unwrap_err().to_string().contains("--host"), "{text}");
        }
        assert_eq!((parse_mode("660"), parse_mode("0600")), (Ok(0o660), Ok(0o600)));
        assert!(parse_mode("888").is_err() && parse_mode("1777").is_err());
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        for (asked, files, n) in [(1024, 1024, 992), (1024, 64, 32), (1024, 32, 8), (1024, 2, 1), (10, 1024, 10)] {
            assert_eq!(within(asked, files), n, "{asked} of {files}");
        }
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let address = Address::Socket(path.clone());
        // A listener of the standard library leaves its file, as a process that was killed does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Bound::open(&address, 0, 0o640).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let error = Bound::open(&address, 0, 0o600).await.err().unwrap().to_string();
        assert!(error.contains("another program listens"), "{error}");
        drop(bound);
        assert!(!path.exists());
        std::fs::write(&path, "text").unwrap();
        let error = Bound::open(&address, 0, 0o600).await.err().unwrap().to_string();
        assert!(error.contains("no socket") && std::fs::read_to_string(&path).unwrap() == "text", "{error}");
    }
}
