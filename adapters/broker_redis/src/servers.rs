//! The forms of an address, and how any server behind it is spoken to.
//!
//! An address or a password must never stand in an error or a log line.

use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    TlsCertificates,
};
use secrecy::ExposeSecret as _;

use crate::answers::words;
use crate::config::{Config, ConfigError};
use crate::line::Lives;
use crate::names::Names;

/// The most servers that an address names.
const HOSTS_MAX: usize = 64;
/// Where sentinels listen unless it is said.
const SENTINEL_PORT: u16 = 26_379;

/// What is expected of the servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Layout {
    /// One server, wherever it is.
    One,
    /// The masters of a Cluster.
    Cluster,
}

/// How the servers are found.
#[derive(Clone, Debug)]
enum Kind {
    One,
    Sentinels { at: Vec<ConnectionInfo>, master: String },
    Cluster { seeds: Vec<ConnectionAddr> },
}

/// A server, as it is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// The only one, or the one that the sentinels name when they are asked.
    Only,
    /// One of many.
    At(ConnectionAddr),
}

impl Place {
    /// What tells it from others, and is nobody's secret.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Only => String::new(),
            Self::At(address) => address.to_string(),
        }
    }
}

/// Everything that an address says.
#[derive(Clone)]
pub(crate) struct Servers {
    kind: Kind,
    /// User, password, database and settings of every one of them; of the only one the address, too.
    template: ConnectionInfo,
    authority: Option<Vec<u8>>,
    lives: Arc<Lives>,
}

/// An address of several hosts, in pieces.
struct Pieces<'t> {
    scheme: &'static str,
    is_sentinel: bool,
    user: Option<&'t str>,
    hosts: Vec<&'t str>,
    path: &'t str,
}

impl Servers {
    pub(crate) fn parse(config: &Config) -> Result<Self, ConfigError> {
        let text = config.url.expose_secret();
        let (kind, info) = match pieces(text)? {
            None => (Kind::One, read(text)?),
            Some(pieces) if pieces.is_sentinel => sentinels(&pieces, config)?,
            Some(pieces) => cluster(&pieces)?,
        };
        let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(password) = &config.password {
            settings = settings.set_password(password.expose_secret());
        }
        let template = info.set_redis_settings(settings).set_tcp_settings(tcp(config));
        let authority = config.authority.clone();
        if authority.is_some() && !is_tls(template.addr()) {
            return Err(ConfigError::Authority("it is of use with rediss:// only".to_owned()));
        }
        let key = (!matches!(kind, Kind::Cluster { .. })).then(|| Names::life(&config.prefix));
        let servers = Self { kind, template, authority, lives: Arc::new(Lives::new(key)) };
        // What can't be meant is said before anything is connected to.
        servers.client(servers.template.addr().clone()).map_err(|error| {
            match &servers.authority {
                Some(_) => ConfigError::Authority(words(&error)),
                None => ConfigError::Address(words(&error)),
            }
        })?;
        Ok(servers)
    }

    pub(crate) fn lives(&self) -> &Lives {
        &self.lives
    }

    pub(crate) const fn layout(&self) -> Layout {
        match self.kind {
            Kind::One | Kind::Sentinels { .. } => Layout::One,
            Kind::Cluster { .. } => Layout::Cluster,
        }
    }

    pub(crate) fn database(&self) -> i64 {
        self.template.redis_settings().db()
    }

    /// The sentinels, and what they call the master; none where there are none.
    pub(crate) fn sentinels(&self) -> Option<(&[ConnectionInfo], &str)> {
        match &self.kind {
            Kind::Sentinels { at, master } => Some((at, master)),
            Kind::One | Kind::Cluster { .. } => None,
        }
    }

    /// Where to ask first about a Cluster.
    pub(crate) fn seeds(&self) -> &[ConnectionAddr] {
        match &self.kind {
            Kind::Cluster { seeds } => seeds,
            Kind::One | Kind::Sentinels { .. } => &[],
        }
    }

    /// The only one's address, where it has one of its own.
    pub(crate) fn only(&self) -> &ConnectionAddr {
        self.template.addr()
    }

    /// An address that another server named, spoken to as these are.
    pub(crate) fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        let host = host.to_owned();
        if is_tls(self.template.addr()) {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    /// What connects to a server at this address.
    pub(crate) fn client(&self, address: ConnectionAddr) -> redis::RedisResult<Client> {
        self.open(self.template.clone().set_addr(address))
    }

    /// What connects to anything, with the same trust.
    pub(crate) fn open(&self, info: ConnectionInfo) -> redis::RedisResult<Client> {
        match &self.authority {
            Some(authority) => {
                let root_cert = Some(authority.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            None => Client::open(info),
        }
    }
}

fn is_tls(address: &ConnectionAddr) -> bool {
    matches!(address, ConnectionAddr::TcpTls { .. })
}

fn tcp(config: &Config) -> TcpSettings {
    // Half of the throughput one by one is lost without `nodelay`. What the other side does not take is given up
    // by the kernel, too, so that no bytes go out long after their connection was given up here.
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(2 * config.answer_timeout);
    settings
}

fn read(text: &str) -> Result<ConnectionInfo, ConfigError> {
    text.into_connection_info().map_err(|error| ConfigError::Address(words(&error)))
}

fn wrong(what: &str) -> ConfigError {
    ConfigError::Address(what.to_owned())
}

/// Takes an address of sentinels or of a Cluster to pieces; none where it is one of neither.
fn pieces(text: &str) -> Result<Option<Pieces<'_>>, ConfigError> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    let scheme = scheme.to_ascii_lowercase().replace('-', "+");
    let (scheme, is_sentinel) = match scheme.as_str() {
        "redis+sentinel" => ("redis", true),
        "rediss+sentinel" => ("rediss", true),
        "redis+cluster" => ("redis", false),
        "rediss+cluster" => ("rediss", false),
        _ => return Ok(None),
    };
    if rest.contains(['?', '#']) {
        return Err(wrong("several servers take no options behind ? or #"));
    }
    // A password may hold anything but an @ that is not written as %40, and a slash.
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    let hosts: Vec<_> = hosts.split(',').map(str::trim).collect();
    if hosts.len() > HOSTS_MAX || hosts.iter().any(|host| host.is_empty()) {
        return Err(wrong("it names 1 to 64 servers, with commas between them"));
    }
    Ok(Some(Pieces { scheme, is_sentinel, user, hosts, path }))
}

/// One of the servers, with what belongs to all of them or without.
fn info_of(
    pieces: &Pieces<'_>,
    host: &str,
    user: Option<&str>,
) -> Result<ConnectionInfo, ConfigError> {
    let (scheme, user) = (pieces.scheme, user.map_or_else(String::new, |user| format!("{user}@")));
    // Behind the last bracket, as an address of IPv6 has colons of its own.
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let port = match (has_port, pieces.is_sentinel) {
        (false, true) => format!(":{SENTINEL_PORT}"),
        _ => String::new(),
    };
    read(&format!("{scheme}://{user}{host}{port}"))
}

fn sentinels(pieces: &Pieces<'_>, config: &Config) -> Result<(Kind, ConnectionInfo), ConfigError> {
    let (master, database) = pieces.path.split_once('/').unwrap_or((pieces.path, ""));
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    if master.is_empty() || master.len() > 255 || !master.bytes().all(is_name) {
        return Err(wrong(
            "behind the sentinels stands what they call the master, as in /mymaster",
        ));
    }
    let database: i64 = match database {
        "" => 0,
        number => {
            number.parse().map_err(|_| wrong("behind the master stands a database's number"))?
        }
    };
    let mut at = Vec::with_capacity(pieces.hosts.len());
    for host in &pieces.hosts {
        let info = info_of(pieces, host, None)?.set_tcp_settings(tcp(config));
        let mut settings = info.redis_settings().clone();
        if let Some(password) = &config.sentinel_password {
            settings = settings.set_password(password.expose_secret());
        }
        if let Some(user) = &config.sentinel_username {
            settings = settings.set_username(user);
        }
        at.push(info.set_redis_settings(settings));
    }
    let info = info_of(pieces, pieces.hosts[0], pieces.user)?;
    let settings = info.redis_settings().clone().set_db(database);
    Ok((Kind::Sentinels { at, master: master.to_owned() }, info.set_redis_settings(settings)))
}

fn cluster(pieces: &Pieces<'_>) -> Result<(Kind, ConnectionInfo), ConfigError> {
    if !matches!(pieces.path, "" | "0") {
        return Err(wrong("a Cluster has database 0 only"));
    }
    let mut seeds = Vec::with_capacity(pieces.hosts.len());
    for host in &pieces.hosts {
        seeds.push(info_of(pieces, host, None)?.addr().clone());
    }
    Ok((Kind::Cluster { seeds }, info_of(pieces, pieces.hosts[0], pieces.user)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Servers {
        Servers::parse(&Config::new(text.into())).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn sentinels_are_read_with_the_master_s_name_and_passwords_of_their_own() {
        let config = Config {
            sentinel_password: Some("theirs".into()),
            ..Config::new("redis+sentinel://ann:s%2Fx@a:1,b,[::1]:3/my-master/4".into())
        };
        let servers = Servers::parse(&config).unwrap();
        let (at, master) = servers.sentinels().unwrap();
        let places: Vec<_> = at.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(places, ["a:1", "b:26379", "::1:3"]);
        assert_eq!((master, servers.database(), servers.layout()), ("my-master", 4, Layout::One));
        assert!(at.iter().all(|info| info.redis_settings().password() == Some("theirs")));
        let own = servers.template.redis_settings();
        assert_eq!((own.username(), own.password()), (Some("ann"), Some("s/x")));
        // Another way to write it.
        assert!(parsed("rediss-sentinel://a/m").sentinels().is_some());
        assert!(is_tls(&parsed("rediss+sentinel://a/m").address("b", 1)));
    }

    #[test]
    fn a_cluster_is_read_with_all_its_seeds() {
        let servers = parsed("redis+cluster://:secret@a:7000,b:7001/0");
        let seeds: Vec<_> = servers.seeds().iter().map(ToString::to_string).collect();
        assert_eq!(
            (seeds, servers.layout()),
            (vec!["a:7000".into(), "b:7001".into()], Layout::Cluster)
        );
        assert_eq!(servers.template.redis_settings().password(), Some("secret"));
        assert_eq!(parsed("redis://a/3").layout(), Layout::One);
    }

    #[test]
    fn what_can_t_be_meant_is_said_without_the_address() {
        for text in [
            "redis+sentinel://:secret@a:1",
            "redis+sentinel://:secret@a:1/m/x",
            "redis+sentinel://:secret@a:1/m m",
            "redis+sentinel://:secret@a:1,/m",
            "redis+sentinel://:secret@a:1/m?secret=1",
            "redis+cluster://:secret@a:1/2",
            "redis+cluster://:secret@a:port",
            "redis+cluster://:secret@",
        ] {
            let error = Servers::parse(&Config::new(text.into())).err().unwrap();
            assert!(matches!(error, ConfigError::Address(_)), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let hosts = vec!["a"; HOSTS_MAX + 1].join(",");
        assert!(Servers::parse(&Config::new(format!("redis+cluster://{hosts}").into())).is_err());
    }

    #[test]
    fn an_authority_is_of_use_with_tls_and_must_be_one() {
        for (url, authority) in
            [("redis://a", "x"), ("rediss://a", "-----BEGIN CERTIFICATE-----\nx")]
        {
            let config = Config { authority: Some(authority.into()), ..Config::new(url.into()) };
            let error = Servers::parse(&config).err().unwrap();
            assert!(matches!(error, ConfigError::Authority(_)), "{url}: {error}");
        }
    }
}
