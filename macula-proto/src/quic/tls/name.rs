//! Host text to TLS server name.

use std::net::Ipv6Addr;

use rustls_pki_types::ServerName;

use super::TlsError;

/// The name to verify a server by, from the host part of an address: a DNS name, or an IP address in any usual form.
///
/// Brackets around an IPv6 address, its zone (`%eth0`) and the dot at the end of a DNS name are dropped. A DNS name
/// is also sent to the server as its name indication (SNI); an IP address is not.
///
/// # Errors
/// [`TlsError::BadName`] for anything else, an empty text and names outside ASCII (not in `xn--` form) included.
pub fn server_name(host: &str) -> Result<String, TlsError> {
    let bad = || TlsError::BadName(host.to_owned());
    if let Some(inside) = host.strip_prefix('[') {
        let inside = inside.strip_suffix(']').ok_or_else(bad)?;
        return ipv6(inside).ok_or_else(bad);
    }
    if let Some(address) = ipv6(host) {
        return Ok(address);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    match ServerName::try_from(host) {
        // A name has one dot at its end at most.
        Ok(name) if !host.ends_with('.') => Ok(name.to_str().into_owned()),
        _ => Err(bad()),
    }
}

fn ipv6(text: &str) -> Option<String> {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    address.parse::<Ipv6Addr>().ok().map(|address| address.to_string())
}
