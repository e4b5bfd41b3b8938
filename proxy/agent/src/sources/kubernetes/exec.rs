//! Credentials that a program issues (`exec` in a kubeconfig).
//!
//! kube runs such a program too, but reads a client certificate from it only once and keeps no time of its end. So it is
//! run here, and again before what it issued expires.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::config::{AuthInfo, ExecConfig};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

/// The longest time that the program may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a program issued no credentials.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kubeconfig names no program.
    #[error("the kubeconfig's exec names no command")]
    NoCommand,
    /// The program could not be started.
    #[error("cannot run {command}, which the kubeconfig's exec names: {error}")]
    Start {
        /// The program that was to issue credentials.
        command: String,
        /// Why it could not be run.
        error: std::io::Error,
    },
    /// The program failed, or did not end in time.
    #[error("{command}, which the kubeconfig's exec names, {how}")]
    Failed {
        /// The program that was to issue credentials.
        command: String,
        /// How it ended, with the end of its standard error.
        how: String,
    },
    /// The program's output is no `ExecCredential` with a status.
    #[error("{command}, which the kubeconfig's exec names, does not write an ExecCredential with a status: {error}")]
    Output {
        /// The program that was to issue credentials.
        command: String,
        /// What is wrong with the output.
        error: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Credential {
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Time>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs the program that `user` names, if it names one, and puts what it issues in its place. Returns when that expires,
/// if the program says so.
pub(super) async fn issue(user: &mut AuthInfo) -> Result<Option<SystemTime>, ExecError> {
    let Some(exec) = user.exec.take() else { return Ok(None) };
    let Status { expiration_timestamp, token, client_certificate_data, client_key_data } = run(&exec).await?;
    user.token = user.token.take().or(token.map(Into::into));
    if let (Some(certificate), Some(key)) = (client_certificate_data, client_key_data) {
        (user.client_certificate, user.client_key) = (None, None);
        user.client_certificate_data = Some(base64(certificate));
        user.client_key_data = Some(base64(key).into());
    }
    let seconds = expiration_timestamp.and_then(|time| u64::try_from(time.0.as_second()).ok());
    Ok(seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// A kubeconfig holds PEM in base64.
fn base64(pem: String) -> String {
    match serde_json::to_value(ByteString(pem.into_bytes())) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

async fn run(exec: &ExecConfig) -> Result<Status, ExecError> {
    let name = exec.command.clone().ok_or(ExecError::NoCommand)?;
    let mut spec = json!({"interactive": false});
    if exec.provide_cluster_info {
        spec["cluster"] = json!(exec.cluster);
    }
    let info = json!({"kind": "ExecCredential", "apiVersion": exec.api_version, "spec": spec});
    let mut command = Command::new(&name);
    command.args(exec.args.iter().flatten()).stdin(Stdio::null()).kill_on_drop(true);
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    let failed = |how: String| ExecError::Failed { command: name.clone(), how };
    let done = match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => return Err(ExecError::Start { command: name, error }),
        Err(_) => return Err(failed(format!("did not end within {} s", TIMEOUT.as_secs()))),
    };
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        let last = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        return Err(failed(format!("failed ({}): {last}", done.status)));
    }
    match serde_json::from_slice::<Credential>(&done.stdout) {
        Ok(credential) => Ok(credential.status),
        Err(error) => Err(ExecError::Output { command: name, error }),
    }
}
