//! A connection over a Unix socket works like one over TCP: errors carry their SQLSTATE, and a read-only server is
//! refused. The driver calls no connector for a socket, so the repository opens it itself.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use ledger::repository::{self, Connection, RepositoryError};

use crate::support::{
    postgres::{TestDatabase, client},
    server::Server,
};

/// Starts a server with a Unix socket in a directory. Returns it with its URL by that socket.
async fn server(directory: &Path) -> (Server, String) {
    // The server may run as another user.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    let server = Server::start(&[&format!("unix_socket_directories={}", directory.display())]).await;
    let socket = directory.display().to_string().replace('/', "%2F");
    let url = server.url_at(&format!("{socket}:{}", server.port()));
    (server, url)
}

async fn open(url: &str) -> Result<Connection, RepositoryError> {
    repository::connect(&TestDatabase::at(url).config.database, "test").await
}

#[tokio::test]
async fn errors_carry_their_sqlstate_and_a_read_only_server_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (server, url) = server(directory.path()).await;
    let mut connection = open(&url).await.expect("connected by the socket");
    let error: RepositoryError =
        diesel_async::RunQueryDsl::execute(diesel::sql_query("SELECT 1 / 0"), &mut connection)
            .await
            .expect_err("a division by zero")
            .into();
    assert!(error.to_string().contains("22012: ") && !error.is_transient(), "{error}");
    let administrator = client(&server.url()).await;
    administrator
        .batch_execute("ALTER DATABASE ledger SET default_transaction_read_only = on")
        .await
        .unwrap();
    let error = open(&url).await.err().expect("refused").to_string();
    assert!(error.contains("does not allow writes"), "{error}");
}
