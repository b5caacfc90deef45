//! Credentials from Docker's `config.json`: `auths`, `credHelpers` and `credsStore`, by the `docker_credential` crate.

use std::env;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_client::secrets::RegistryAuth;

use super::RegistryError;

/// What Docker calls its own registry there.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a credential helper says when it has none for the host.
const NONE_KNOWN: &str = "credentials not found";

/// The credentials for a registry's host; anonymous where there are none.
pub(super) fn of(host: &str) -> Result<RegistryAuth, RegistryError> {
    let Some(path) = config_path() else {
        return Ok(RegistryAuth::Anonymous);
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(cause) => return Err(failed(path, host, cause.to_string())),
    };
    from_config(BufReader::new(file), host).map_err(|why| failed(path, host, why))
}

fn failed(path: PathBuf, host: &str, why: String) -> RegistryError {
    RegistryError::Credentials {
        path,
        host: host.to_owned(),
        why,
    }
}

fn config_path() -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let dir = env::var_os("DOCKER_CONFIG")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    Some(dir.or_else(home)?.join("config.json"))
}

fn from_config(config: impl io::Read, host: &str) -> Result<RegistryAuth, String> {
    let server = if host == "docker.io" {
        DOCKER_HUB
    } else {
        host
    };
    match get_credential_from_reader(config, server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            Err("it is an identity token, which husk cannot use: log in with a password or an access token".to_owned())
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = [stdout.trim(), stderr.trim()].join(" ");
            if said.contains(NONE_KNOWN) {
                return Ok(RegistryAuth::Anonymous);
            }
            Err(format!("{helper} failed: {}", said.trim()))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err("its credential helper cannot be run: install it, or log in again without it".to_owned())
        }
        Err(CredentialRetrievalError::ConfigReadError) => Err("it is not JSON of the expected form".to_owned()),
        Err(other) => Err(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_configuration() {
        // "ada:pass:word"
        let config = r#"{"auths":{
            "reg.io:5000":{"auth":"YWRhOnBhc3M6d29yZA=="},
            "https://index.docker.io/v1/":{"auth":"YWRhOnBhc3M6d29yZA=="},
            "empty.io":{},
            "token.io":{"identitytoken":"x"},
            "bad.io":{"auth":"!!"}}}"#;
        let get = |host: &str| from_config(config.as_bytes(), host);
        let ada = RegistryAuth::Basic("ada".to_owned(), "pass:word".to_owned());
        assert_eq!(get("reg.io:5000").unwrap(), ada);
        assert_eq!(get("docker.io").unwrap(), ada);
        assert_eq!(get("other.io").unwrap(), RegistryAuth::Anonymous);
        assert_eq!(get("empty.io").unwrap(), RegistryAuth::Anonymous);
        assert!(get("token.io").unwrap_err().contains("identity token"));
        assert!(get("bad.io").is_err());
        assert!(from_config(&b"{"[..], "x").is_err());
        assert!(
            from_config(&br#"{"credsStore":"husk-test-absent"}"#[..], "x")
                .unwrap_err()
                .contains("helper")
        );
    }
}
