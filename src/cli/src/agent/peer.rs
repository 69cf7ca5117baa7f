//! Who is at the other end of a socket.
//!
//! Invariant: what the kernel says counts, and where it says nothing nobody is answered.

use tokio::net::UnixStream;

/// Root, whose first process is systemd.
const ROOT: u32 = 0;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// This user's processes.
    Own,
    /// These and root's.
    OwnAndRoot,
}

impl Admitted {
    /// Whether the process at the other end of `stream` may ask.
    pub(super) fn admits(self, stream: &UnixStream) -> bool {
        let own = rustix::process::geteuid().as_raw();
        stream.peer_cred().is_ok_and(|peer| self.admits_user(peer.uid(), own))
    }

    fn admits_user(self, user: u32, own: u32) -> bool {
        match self {
            Self::Own => user == own,
            Self::OwnAndRoot => user == own || user == ROOT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_users_are_not_answered_and_root_only_for_systemd() {
        assert!(Admitted::Own.admits_user(1000, 1000));
        assert!(!Admitted::Own.admits_user(1001, 1000));
        assert!(!Admitted::Own.admits_user(0, 1000));
        assert!(!Admitted::Own.admits_user(1000, 0), "root answers nobody else");
        assert!(Admitted::OwnAndRoot.admits_user(0, 1000));
        assert!(Admitted::OwnAndRoot.admits_user(1000, 1000));
        assert!(!Admitted::OwnAndRoot.admits_user(1001, 1000));
    }

    #[tokio::test]
    async fn the_kernel_says_who_it_is() {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(Admitted::Own.admits(&one) && Admitted::Own.admits(&other));
    }
}
