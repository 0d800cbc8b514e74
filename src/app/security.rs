//! Users and the deny list, from the configuration; and what `dsproxy check` says of security.
//!
//! Must not know: what they are used for.

use super::{StartError, StartErrors};
use crate::acl::Policy;
use crate::command::Learned;
use crate::config::{Config, ScriptPolicy};
use crate::core::{Access, AccessOptions};
use crate::metrics::SecurityMetrics;
use std::fmt::Write as _;
use std::sync::Arc;

/// Reads the users.
///
/// # Errors
/// What is wrong with them, or with the deny list.
pub(super) fn access(
    config: &Config,
    learned: Arc<Learned>,
    metrics: Arc<SecurityMetrics>,
) -> Result<Access, StartErrors> {
    let acl = &config.acl;
    if acl.file.is_some() && !acl.users.is_empty() {
        let text = "acl.users and acl.file are both set: name the users in one place";
        return Err(StartError::Access(text.to_owned()).into());
    }
    let policy = Policy::new(acl.read_only, &acl.deny, &learned)
        .map_err(|error| StartError::Access(format!("acl.deny: {error}")))?;
    let options = AccessOptions {
        password: config.server.password.clone(),
        users: acl.users.iter().map(|line| line.expose().to_owned()).collect(),
        file: acl.file.as_ref().map(Into::into),
        policy,
        trusts_scripts: acl.scripts == ScriptPolicy::Trust,
        log_entries: acl.log_entries,
    };
    let access =
        Access::new(options, learned, metrics).map_err(|error| StartError::Access(error.to_string()))?;
    for user in access.users().iter().filter(|user| !user.is_enabled()) {
        tracing::info!(user = %user.name().escape_ascii(), "this user is off: nobody can log in as it");
    }
    Ok(access)
}

/// What is configured, without any secret.
pub(super) fn describe(config: &Config, access: &Access, report: &mut String) {
    let users = access.users();
    for user in users.iter() {
        let mut notes = Vec::new();
        notes.push(if user.is_enabled() { "on" } else { "off" });
        if user.has_no_password() {
            notes.push("no password");
        }
        notes.push(if user.is_free() { "full rights" } else { "limited rights" });
        let _ = writeln!(report, "user: {} ({})", user.name().escape_ascii(), notes.join(", "));
    }
    let default = users.default_user();
    if users.len() > 1 && default.needs_no_password() && default.is_free() {
        report.push_str(
            "warning: the user default needs no password and may do everything; add a line such as `default off`, or set server.password\n",
        );
    }
    if config.acl.read_only {
        report.push_str("read-only: everything that writes is refused\n");
    }
    if !config.acl.deny.is_empty() {
        let _ = writeln!(report, "denied to everybody: {}", config.acl.deny.join(", "));
    }
    if !config.server.plain {
        report.push_str("plain port: off\n");
    }
    if config.http.enabled && config.http.tls_certificate.is_some() {
        let clients = if config.http.tls_client_ca.is_some() { "must" } else { "need not" };
        let _ = writeln!(report, "https: {}, clients {clients} show a certificate", config.http.listen);
    }
    let tls = &config.tls;
    if let Some(listen) = tls.listen {
        let clients = match (&tls.client_ca, tls.client_optional) {
            (None, _) => "clients need no certificate",
            (Some(_), true) => "clients may show a certificate",
            (Some(_), false) => "clients must show a certificate",
        };
        let _ = writeln!(report, "tls: {listen}, {clients}");
    }
    if config.upstream.tls {
        let shown = if config.upstream.tls_certificate.is_some() { ", showing a certificate" } else { "" };
        let _ = writeln!(report, "tls to the nodes: yes{shown}");
    }
    for (what, networks) in
        [("allowed", &config.server.allow), ("PROXY protocol", &config.server.proxy_protocol)]
    {
        if !networks.is_empty() {
            let _ = writeln!(report, "networks ({what}): {}", networks.join(", "));
        }
    }
}
