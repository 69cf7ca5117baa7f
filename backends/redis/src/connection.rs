//! The nodes, and the way to each.
//!
//! Invariant: each operation has connections of its own. What it waited for and did not get
//! goes with them, so that no late answer is taken for another's, and a `WATCH` is its alone.

use std::{fs, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, TlsCertificates, aio::MultiplexedConnection,
};

use crate::{
    config::{ConfigError, Persist, Place, RedisConfig, Tls},
    error::Failure,
};

/// One node.
pub(crate) struct Node {
    /// `host:port`, for people.
    pub(crate) name: String,
    address: ConnectionAddr,
    client: Client,
    certificates: Option<TlsCertificates>,
    settings: AsyncConnectionConfig,
    persist: Persist,
}

/// An open connection to a node.
pub(crate) struct Open<'a> {
    node: &'a Node,
    connection: MultiplexedConnection,
}

impl Node {
    pub(crate) fn new(config: &RedisConfig, place: &Place) -> Result<Self, ConfigError> {
        let name = format!("{}:{}", place.host, place.port);
        let address = match config.tls {
            Tls::Disable => ConnectionAddr::Tcp(place.host.clone(), place.port),
            Tls::VerifyFull => ConnectionAddr::TcpTls {
                host: place.host.clone(),
                port: place.port,
                insecure: false,
                tls_params: None,
            },
        };
        let certificates = certificates(config)?;
        let mut login =
            RedisConnectionInfo::default().set_skip_set_lib_name().set_username(&config.username);
        if let Some(password) = &config.password {
            login = login.set_password(password.expose());
        }
        let client = client(&address, login, certificates.as_ref())
            .map_err(|_| ConfigError::Client(name.clone()))?;
        let millis = |value: u32| Some(Duration::from_millis(u64::from(value)));
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(millis(config.connect_timeout_ms))
            .set_response_timeout(millis(config.answer_timeout_ms));
        Ok(Self { name, address, client, certificates, settings, persist: config.persist })
    }

    /// Logs in as ourselves.
    pub(crate) async fn open(&self) -> Result<Open<'_>, Failure> {
        let opened = self.client.get_multiplexed_async_connection_with_config(&self.settings).await;
        let connection = opened.map_err(|error| Failure::connect(&self.name, &error))?;
        Ok(Open { node: self, connection })
    }

    /// Logs in as somebody else, and goes away again.
    pub(crate) async fn try_login(&self, user: &str, password: &str) -> Result<(), Failure> {
        let login = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_username(user)
            .set_password(password);
        let failed = |error: redis::RedisError| Failure::connect(&self.name, &error);
        let client = client(&self.address, login, self.certificates.as_ref()).map_err(failed)?;
        let opened = client.get_multiplexed_async_connection_with_config(&self.settings).await;
        opened.map(drop).map_err(failed)
    }
}

impl Open<'_> {
    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        &self.node.name
    }

    /// Sends one message of one or more commands, and gives their answers.
    pub(crate) async fn ask<T: FromRedisValue>(
        &mut self,
        message: &Pipeline,
    ) -> Result<T, Failure> {
        let answer = message.query_async(&mut self.connection).await;
        answer.map_err(|error| Failure::sent(&self.node.name, &error))
    }

    /// Has the node keep its users as they are now.
    pub(crate) async fn save(&mut self) -> Result<(), Failure> {
        let mut message = redis::pipe();
        match self.node.persist {
            Persist::AclFile => message.cmd("ACL").arg("SAVE").ignore(),
            Persist::Config => message.cmd("CONFIG").arg("REWRITE").ignore(),
            Persist::None => return Ok(()),
        };
        self.ask(&message).await.map_err(Failure::unsaved)
    }
}

fn client(
    address: &ConnectionAddr,
    login: RedisConnectionInfo,
    certificates: Option<&TlsCertificates>,
) -> redis::RedisResult<Client> {
    let info: ConnectionInfo = address.clone().into_connection_info()?.set_redis_settings(login);
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, ConfigError> {
    if config.tls == Tls::Disable {
        return Ok(None);
    }
    // The one provider that the whole program has; an error says that it is there already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let root_cert = match &config.ca_file {
        None => None,
        Some(path) => Some(
            fs::read(path).map_err(|cause| ConfigError::CaFile { path: path.clone(), cause })?,
        ),
    };
    Ok(Some(TlsCertificates { client_tls: None, root_cert }))
}
