//! TLS to a real PostgreSQL with a certificate: chain and name are verified, and there is no fallback to plain text.
//!
//! Seen to fail when a URL without a mode meant plain text although a CA file was configured.

use std::path::Path;

use ledger::repository;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{
    api::{Api, transaction},
    postgres::TestDatabase,
    server::Server,
};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Writes a server certificate for `name` and its key. Only the server's user can read them.
fn certify(authority: &CertifiedIssuer<'_, KeyPair>, name: &str, directory: &Path) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let certificate = parameters.signed_by(&key, authority).expect("signed");
    let owner = std::fs::metadata(directory).expect("metadata");
    for (file, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let path = directory.join(file);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("given");
    }
}

/// Starts a server with a certificate for `localhost`. Its URL uses that name.
async fn server(authority: &CertifiedIssuer<'_, KeyPair>) -> (Server, String) {
    let mut server = Server::start(&[]).await;
    certify(authority, "localhost", &server.directory().join("postgresql"));
    server.down().await;
    server.set(&["ssl=on"]);
    server.up().await;
    let url = server.url_at(&format!("localhost:{}", server.port()));
    (server, url)
}

async fn refused(url: &str, ca_file: &str) -> String {
    let database = TestDatabase::at(url).config_with(&[("database.tls_ca_file", ca_file)]).database;
    match repository::connect(&database, "test").await {
        Ok(_) => panic!("connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_unless_chain_and_name_of_the_certificate_are_valid() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (right, wrong) = (authority(), authority());
    let (server, url) = server(&right).await;
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right.pem", &right.pem()), file("wrong.pem", &wrong.pem()));

    // Every mode with TLS verifies both. The server reports all connections as encrypted.
    for mode in ["verify-full", "verify-ca", "require"] {
        let tls = [("database.tls_ca_file", right.as_str())];
        let api = Api::on(TestDatabase::at(&format!("{url}?sslmode={mode}")), &tls).await;
        assert_eq!(api.post(mode, &transaction("a", "credit", "1.00", "EUR")).await.status, 201, "{mode}");
        assert_eq!(api.get("/accounts/a").await.status, 200, "{mode}");
        let client = crate::support::postgres::client(&server.url()).await;
        let connections = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
            FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'ledger serve%'";
        let row = client.query_one(connections, &[]).await.unwrap();
        assert!(row.get::<_, i64>(0) >= 2 && row.get::<_, i64>(1) == 0, "{mode}: {row:?}");
        api.stop().await;
    }

    let other_ca = refused(&format!("{url}?sslmode=verify-full"), &wrong).await;
    assert!(other_ca.contains("UnknownIssuer") || other_ca.contains("BadSignature"), "{other_ca}");
    let mozilla = refused(&format!("{url}?sslmode=verify-full"), "").await;
    assert!(mozilla.contains("UnknownIssuer"), "{mozilla}");
    for mode in ["verify-full", "require"] {
        let by_address = server.url_at(&format!("127.0.0.1:{}", server.port()));
        let other_name = refused(&format!("{by_address}?sslmode={mode}"), &right).await;
        assert!(other_name.contains("not valid for name"), "{other_name}");
    }
    let empty = refused(&format!("{url}?sslmode=verify-full"), &file("empty.pem", "")).await;
    assert!(empty.contains("holds no certificate"), "{empty}");

    // A mode that may fall back to plain text is refused.
    for url in
        [format!("{url}?sslmode=prefer"), format!("{url}?sslmode=pre%66er"), format!("{url}?sslmode=allow")]
    {
        let reason = refused(&url, "").await;
        assert!(reason.contains("sslmode") || reason.contains("ssl_mode"), "{reason}");
    }
    for url in [url.clone(), format!("{url}?sslmode=disable")] {
        let reason = refused(&url, &right).await;
        assert!(reason.contains("does not ask for TLS"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_if_the_url_asks_for_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = TestDatabase::new().await;
    for mode in ["verify-full", "verify-ca", "require"] {
        let reason = refused(&format!("{}?sslmode={mode}", database.url), "").await;
        assert!(reason.contains("server does not support TLS"), "{reason}");
    }
}
