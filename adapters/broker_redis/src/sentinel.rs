//! Asking sentinels which server is the master.
//!
//! All are asked at once, and the one that knows of the newest election is believed: one that was cut off names the
//! old master for as long as it is.

use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::answers::code;
use crate::config::Config;
use crate::line::{ConnectError, connect};
use crate::servers::Servers;

/// What one of them says.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Said {
    /// Counts the elections.
    election: u64,
    host: String,
    port: u16,
}

/// Where the master is. Whoever connects there still has to look whether it is one.
pub(crate) async fn master_of(
    servers: &Servers,
    config: &Config,
) -> Result<ConnectionAddr, ConnectError> {
    let Some((sentinels, name)) = servers.sentinels() else { return Err(ConnectError::NoSentinel) };
    let mut asking = JoinSet::new();
    for sentinel in sentinels {
        asking.spawn(ask(servers.clone(), sentinel.clone(), name.to_owned(), config.clone()));
    }
    let mut newest: Option<Said> = None;
    let mut error = ConnectError::NoSentinel;
    let mut until = Instant::now() + 2 * config.answer_timeout;
    loop {
        let answer = tokio::select! {
            answer = asking.join_next() => answer,
            () = sleep_until(until) => None,
        };
        match answer {
            Some(Ok(Ok(said))) => {
                if newest.is_none() {
                    // Those that are there answer at once: the others are not waited for.
                    until = until.min(Instant::now() + config.answer_timeout / 4);
                }
                newest = newest.max(Some(said));
            }
            Some(Ok(Err(wrong))) if wrong.is_for_good() => error = wrong,
            Some(_) => {}
            None => break,
        }
    }
    newest.map(|said| servers.address(&said.host, said.port)).ok_or(error)
}

async fn ask(
    servers: Servers,
    sentinel: ConnectionInfo,
    name: String,
    config: Config,
) -> Result<Said, ConnectError> {
    let client = servers.open(sentinel)?;
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.answer_timeout))
        .set_response_timeout(Some(config.answer_timeout));
    let mut connection = connect(&client, &options, &config).await?;
    let answer: Result<Vec<(String, String)>, RedisError> =
        redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async(&mut connection).await;
    let fields = match answer {
        Ok(fields) => fields,
        Err(error) if error.detail().is_some_and(|d| d.contains("No such master")) => {
            return Err(ConnectError::NoMaster);
        }
        // Only a Sentinel has the command.
        Err(error) if code(&error) == Some("ERR") => return Err(ConnectError::NoSentinel),
        Err(error) => return Err(error.into()),
    };
    read(&fields).ok_or(ConnectError::Strange)
}

fn read(fields: &[(String, String)]) -> Option<Said> {
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    Some(Said {
        election: field("config-epoch")?.parse().ok()?,
        host: field("ip").filter(|ip| !ip.is_empty())?.clone(),
        port: field("port")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(epoch: &str, port: &str) -> Vec<(String, String)> {
        let pairs = [("name", "m"), ("ip", "10.0.0.1"), ("port", port), ("config-epoch", epoch)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn who_knows_of_the_newer_election_is_believed() {
        let (old, new) =
            (read(&fields("9", "7001")).unwrap(), read(&fields("10", "7000")).unwrap());
        assert_eq!(old.max(new).port, 7_000);
        for wrong in [fields("x", "1"), fields("1", "70000"), Vec::new()] {
            assert_eq!(read(&wrong), None);
        }
    }
}
