//! Which addresses an issuer's name may resolve to.
//!
//! Invariant: a request for keys never reaches this machine (unless the configuration names
//! it outright), a link-local neighbour or a cloud's metadata service, whatever DNS says. The
//! check is made on the very addresses that the connection then uses, so a second answer of
//! the name server changes nothing. Private networks are allowed: issuers live there.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that are not link-local: Alibaba Cloud, and AWS over IPv6.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// Whether no connection may be made to `ip`.
pub(crate) fn is_forbidden(ip: IpAddr, loopback_allowed: bool) -> bool {
    let ip = ip.to_canonical();
    if ip.is_loopback() {
        return !loopback_allowed;
    }
    if ip.is_unspecified() || ip.is_multicast() {
        return true;
    }
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4 == METADATA_V4,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

/// The system's resolver, without the addresses that are forbidden.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver {
    pub(crate) loopback_allowed: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let loopback_allowed = self.loopback_allowed;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|at| !is_forbidden(at.ip(), loopback_allowed)).collect();
            if allowed.is_empty() {
                let why = "the name has no address that may be asked";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_metadata_services_and_this_machine_are_forbidden() {
        for forbidden in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(is_forbidden(forbidden.parse().unwrap(), false), "{forbidden}");
        }
        for allowed in ["192.0.2.1", "10.1.2.3", "fd12::1", "2001:db8::1"] {
            assert!(!is_forbidden(allowed.parse().unwrap(), false), "{allowed}");
        }
        assert!(!is_forbidden("127.0.0.1".parse().unwrap(), true));
        assert!(is_forbidden("169.254.169.254".parse().unwrap(), true));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_has_no_address_for_us() {
        let name: Name = "localhost".parse().unwrap();
        assert!(Resolver { loopback_allowed: false }.resolve(name).await.is_err());
        let name: Name = "localhost".parse().unwrap();
        let found = Resolver { loopback_allowed: true }.resolve(name).await.ok().unwrap();
        assert!(found.count() > 0);
    }
}
