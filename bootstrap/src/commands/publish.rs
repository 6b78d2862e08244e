//! `roomkeeper publish ROOM DATA`: publishes one message and prints its acknowledgement.
//!
//! It must never print anything else on `out`, and never show a token.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use client_tungstenite::{
    Authorities, Client, ConnectError, DEFAULT_URL, Events, Options, PublishOptions, RequestError,
    Token,
};
use domain::id::{IdError, MessageId};
use domain::room::{RoomId, RoomIdError};
use domain::tags::{Tags, TagsError};
use thiserror::Error;

/// Which server to talk to, as whom.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Where it is; none means on this machine, as `serve` listens without settings.
    pub url: Option<String>,
    /// The token to show.
    pub token: Option<Token>,
    /// A file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// What to publish.
#[derive(Clone, Debug)]
pub struct PublishArgs {
    /// Which server.
    pub connection: Connection,
    /// The room's name.
    pub room: String,
    /// The message, JSON.
    pub data: String,
    /// The message's id; none takes a fresh one.
    pub msg_id: Option<String>,
    /// By what members may choose it: names with a value each.
    pub tags: Vec<(String, String)>,
}

/// Why there is no connection, and what to do.
#[derive(Debug, Error)]
pub enum ConnectFailed {
    /// Nothing listens there.
    #[error("{0}: is the server running? start it with: roomkeeper serve")]
    NoServer(ConnectError),
    /// The server refused the token, or wants one.
    #[error("the server does not let this client in: give a valid token with --token")]
    NotLetIn(#[source] ConnectError),
    /// The file with authorities can't be used.
    #[error("--ca-file {}: {reason}", .file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server's certificate is not trusted.
    #[error(
        "the server is not trusted: the name in --url must be one of its certificate, and who signed \
         that must be known to the system or stand in --ca-file"
    )]
    NotTrusted(#[source] ConnectError),
    /// Anything else.
    #[error("can't connect: check --url")]
    Other(#[source] ConnectError),
}

/// Why a room's name is none.
#[derive(Debug, Error)]
#[error("'{room}' is not the name of a room, like public:lobby: it {reason}")]
pub struct NotARoom {
    room: String,
    reason: RoomIdError,
}

/// Why nothing was published, and what to do.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The room's name is none.
    #[error(transparent)]
    Room(#[from] NotARoom),
    /// The message's id is none.
    #[error("--msg-id can't be used: it {0}")]
    MessageId(IdError),
    /// The tags are too many, or contradict each other.
    #[error("--tag can't be used like this: {0}")]
    Tags(&'static str),
    /// The data is not JSON.
    #[error(
        "DATA is not JSON ({reason}): put quotes of JSON into quotes of the shell, like \
         {example}"
    )]
    Data {
        /// What the parser says.
        reason: serde_json::Error,
        /// A command that would work.
        example: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectFailed),
    /// The server did not take it.
    #[error("not published: {0}")]
    Request(RequestError),
    /// The acknowledgement can't be printed.
    #[error("can't write the answer")]
    Output(#[source] io::Error),
}

/// Publishes one message and prints its acknowledgement as one line of JSON.
///
/// # Errors
/// [`CommandError`] says what is wrong and what to do about it.
pub async fn run(args: PublishArgs, out: &mut impl Write) -> Result<(), CommandError> {
    let room = parse_room(&args.room)?;
    let msg_id = args.msg_id.as_deref().map(MessageId::parse).transpose();
    let msg_id = msg_id.map_err(CommandError::MessageId)?;
    let tags = args.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let tags = Tags::build(tags).map_err(|error| CommandError::Tags(tags_refused(error)))?;
    if let Err(reason) = serde_json::from_str::<&serde_json::value::RawValue>(&args.data) {
        let example = quoted_example(&room, &args.data);
        return Err(CommandError::Data { reason, example });
    }
    let (client, events) = connect(args.connection).await?;
    drop(events);
    let options = PublishOptions { msg_id, tags, ..PublishOptions::default() };
    let acknowledged = client.publish(&room, &args.data, options).await;
    client.close().await;
    let ack = acknowledged.map_err(CommandError::Request)?;
    let line = serde_json::to_string(&ack).map_err(|error| CommandError::Output(error.into()))?;
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CommandError::Output)
}

const fn tags_refused(error: TagsError) -> &'static str {
    match error {
        TagsError::TooMany => "a message has at most 8 tags",
        TagsError::TooLong => "names and values have at most 64 bytes",
        TagsError::Duplicate => "a name comes twice",
    }
}

/// Connects as the command line says.
pub async fn connect(connection: Connection) -> Result<(Client, Events), ConnectFailed> {
    let Connection { url, token, ca_file } = connection;
    let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
    let authorities = ca_file.map_or(Ok(Authorities::default()), |file| authorities(&file))?;
    let options = Options { token, authorities, ..Options::new(url) };
    Client::connect(options).await.map_err(|error| match &error {
        refused if refused.is_refused() => ConnectFailed::NoServer(error),
        ConnectError::Http { status: 401 | 403, .. }
        | ConnectError::Ended { code: 3500 | 3501 | 3504, .. } => ConnectFailed::NotLetIn(error),
        ConnectError::NotTrusted(_) => ConnectFailed::NotTrusted(error),
        _ => ConnectFailed::Other(error),
    })
}

fn authorities(file: &Path) -> Result<Authorities, ConnectFailed> {
    let failed = |reason: String| ConnectFailed::Authorities { file: file.to_path_buf(), reason };
    let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    Authorities::default().and_pem(&pem).map_err(|error| failed(error.to_string()))
}

/// Reads the name of a room.
pub fn parse_room(room: &str) -> Result<RoomId, NotARoom> {
    RoomId::parse(room).map_err(|reason| NotARoom { room: room.to_owned(), reason })
}

/// The command that publishes `data` as a text.
fn quoted_example(room: &RoomId, data: &str) -> String {
    // What the shell would have to be told more about is left to the reader.
    let plain = data.len() <= 40 && !data.is_empty() && !data.contains(['\'', '"', '\\']);
    let text = if plain && !data.contains(char::is_control) { data } else { "hello" };
    format!("roomkeeper publish {room} '\"{text}\"'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(room: &str, data: &str, url: Option<&str>) -> PublishArgs {
        let connection = Connection { url: url.map(str::to_owned), ..Connection::default() };
        let (room, data) = (room.to_owned(), data.to_owned());
        PublishArgs { connection, room, data, msg_id: None, tags: Vec::new() }
    }

    async fn refused(args: PublishArgs) -> CommandError {
        let mut out = Vec::new();
        let error = run(args, &mut out).await.unwrap_err();
        assert!(out.is_empty());
        error
    }

    #[tokio::test]
    async fn data_that_is_not_json_is_shown_how_to_be_quoted() {
        let said = refused(args("public:lobby", "hello", None)).await.to_string();
        assert!(said.contains(r#"roomkeeper publish public:lobby '"hello"'"#), "{said}");
        for data in ["", "it's", "{\"a\":", "a\nb"] {
            let said = refused(args("public:lobby", data, None)).await.to_string();
            assert!(said.ends_with(r#"'"hello"'"#), "{said}");
        }
    }

    #[tokio::test]
    async fn tags_that_are_too_many_or_of_one_name_are_refused_before_anything_is_sent() {
        let tag = |name: &dyn std::fmt::Display| (name.to_string(), "v".to_owned());
        let many = (0..9).map(|n| tag(&n)).collect();
        for (tags, why) in [(many, "at most 8 tags"), (vec![tag(&1), tag(&1)], "comes twice")] {
            let said = refused(PublishArgs { tags, ..args("public:lobby", "1", None) }).await;
            assert!(said.to_string().contains(why), "{said}");
        }
    }

    #[tokio::test]
    async fn a_name_that_is_no_room_is_shown_what_one_looks_like() {
        let said = refused(args("lobby", "1", None)).await.to_string();
        assert!(said.contains("'lobby' is not the name of a room, like public:lobby"), "{said}");
    }

    #[tokio::test]
    async fn without_a_server_it_says_how_to_start_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        drop(listener);
        let said = refused(args("public:lobby", "1", Some(&url))).await.to_string();
        assert!(said.ends_with("is the server running? start it with: roomkeeper serve"), "{said}");
    }

    #[tokio::test]
    async fn a_file_with_authorities_that_cannot_be_used_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for (contents, what) in [(None, "No such file"), (Some("hello"), "holds no certificate")] {
            if let Some(contents) = contents {
                std::fs::write(&file, contents).unwrap();
            }
            let mut args = args("public:lobby", "1", Some("wss://example.com"));
            args.connection.ca_file = Some(file.clone());
            let said = refused(args).await.to_string();
            assert!(said.contains("ca.pem") && said.contains(what), "{said}");
        }
    }
}
