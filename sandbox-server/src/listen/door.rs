//! Who may talk to the server at all: everybody but what runs in a slot.
//!
//! Decided once for each connection, by a thread of its own: to look through `/proc` may take
//! milliseconds. What waits meanwhile is judged together, so a slot that knocks without end keeps
//! others for no longer than one such look.
//!
//! Invariant: a connection from this machine is let in only when its socket was found and belongs
//! to somebody outside of all slots. A token does not change that.

use super::{
    holders::{self, Held, Mark},
    peer::{self, Ends, Finder, Found},
};
use crate::uids;
use slotmux_protocol::{Isolation, Network};
use std::{io, thread};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};

const WAITING_MAX: usize = 1_024;
const STACK_BYTES: usize = 256 << 10;

/// How slots of this server could come to its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slots {
    /// They have networks of their own: not at all.
    Apart,
    /// As users of their own.
    OwnUsers,
    /// As the server's user, behind walls or without any.
    SharedUser { walled: bool },
    /// Slots take whatever user they like: the holder of any socket is looked for.
    AnyUser,
}

impl Slots {
    pub(crate) fn of(isolation: Isolation, network: Network, own_users: bool) -> Self {
        match isolation {
            Isolation::Namespaces if network != Network::On => Self::Apart,
            Isolation::Namespaces | Isolation::Uid if own_users => Self::OwnUsers,
            Isolation::Namespaces | Isolation::Uid | Isolation::Landlock => {
                Self::SharedUser { walled: true }
            }
            Isolation::None => Self::SharedUser { walled: false },
        }
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("calls from inside a slot are refused")]
    Slot,
    #[error("a local client that has closed its socket cannot be told from a slot")]
    Closed,
    #[error(
        "this client cannot be told from a slot, whose user it shares: its process is not to be \
         seen; call as another user, or from a process of the server's own container"
    )]
    Unseen,
    #[error("it cannot be found out whether this call comes from inside a slot")]
    Unknown,
}

#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// For everybody.
    #[cfg(test)]
    Open,
    Kept(mpsc::Sender<Knock>),
}

#[derive(Debug)]
pub(crate) struct Knock {
    ends: Ends,
    answer: oneshot::Sender<Result<(), Refused>>,
}

impl Door {
    pub(crate) fn keep(slots: Slots) -> io::Result<Self> {
        let keeper = Keeper::new(slots)?;
        let (knocks, mut waiting) = mpsc::channel(WAITING_MAX);
        thread::Builder::new().name("door".to_owned()).stack_size(STACK_BYTES).spawn(
            move || {
                let mut batch = Vec::new();
                while waiting.blocking_recv_many(&mut batch, WAITING_MAX) > 0 {
                    keeper.answer(batch.drain(..));
                }
            },
        )?;
        Ok(Self::Kept(knocks))
    }

    pub(crate) async fn admit(&self, stream: &TcpStream) -> Result<(), Refused> {
        let knocks = match self {
            #[cfg(test)]
            Self::Open => return Ok(()),
            Self::Kept(knocks) => knocks,
        };
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
            return Err(Refused::Closed);
        };
        let (answer, answered) = oneshot::channel();
        let knock = Knock { ends: Ends::new(peer, local), answer };
        knocks.send(knock).await.map_err(|_| Refused::Unknown)?;
        answered.await.map_err(|_| Refused::Unknown)?
    }
}

struct Keeper {
    finder: Option<Finder>,
    slots: Slots,
    own_uid: u32,
    mark: Option<Mark>,
}

/// What is known of a connection by its socket alone.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Decided(Result<(), Refused>),
    /// It depends on who holds the socket.
    HeldBy(u64),
}

impl Keeper {
    fn new(slots: Slots) -> io::Result<Self> {
        let finder = Finder::detect().inspect_err(|error| {
            tracing::error!(%error, "sockets cannot be looked up: local clients are refused");
        });
        let mark = match slots {
            Slots::Apart | Slots::OwnUsers => None,
            Slots::SharedUser { walled: true } | Slots::AnyUser => Some(Mark::of_walls()?),
            Slots::SharedUser { walled: false } => Some(Mark::of_descent()),
        };
        let own_uid = rustix::process::geteuid().as_raw();
        Ok(Self { finder: finder.ok(), slots, own_uid, mark })
    }

    fn answer(&self, knocks: impl Iterator<Item = Knock>) {
        let mut held = Vec::new();
        for Knock { ends, answer } in knocks {
            match self.look(ends) {
                // Nobody hears it any more when the server is ending.
                Sight::Decided(verdict) => drop(answer.send(verdict)),
                Sight::HeldBy(inode) => held.push((inode, answer)),
            }
        }
        let Some(mark) = self.mark.filter(|_| !held.is_empty()) else { return };
        let inodes: Vec<_> = held.iter().map(|(inode, _)| *inode).collect();
        let holders = holders::of(&inodes, mark).unwrap_or_else(|error| {
            tracing::warn!(%error, "processes cannot be looked through");
            std::collections::HashMap::new()
        });
        for (inode, answer) in held {
            let verdict = match holders.get(&inode) {
                Some(Held::Outside) => Ok(()),
                Some(Held::Inside) => Err(Refused::Slot),
                Some(Held::ByNobodySeen) => Err(Refused::Unseen),
                None => Err(Refused::Unknown),
            };
            let _ = answer.send(verdict);
        }
    }

    fn look(&self, ends: Ends) -> Sight {
        let found = match &self.finder {
            Some(finder) => finder.find(ends),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        match found {
            Ok(Some(found)) => self.judge(found),
            // Whoever connects from this machine and hangs up at once leaves no trace.
            Ok(None) if peer::is_own(ends.peer) => Sight::Decided(Err(Refused::Closed)),
            Err(_) if peer::is_own(ends.peer) => Sight::Decided(Err(Refused::Unknown)),
            Ok(None) | Err(_) => Sight::Decided(Ok(())),
        }
    }

    fn judge(&self, found: Found) -> Sight {
        match self.slots {
            // The user of a closed socket is not told.
            _ if found.inode == 0 => Sight::Decided(Err(Refused::Closed)),
            // Also those of other servers of this machine.
            _ if uids::are_slots(found.uid) => Sight::Decided(Err(Refused::Slot)),
            Slots::SharedUser { .. } if found.uid == self.own_uid => Sight::HeldBy(found.inode),
            Slots::AnyUser => Sight::HeldBy(found.inode),
            _ => Sight::Decided(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::net::TcpListener;

    #[test]
    fn slots_are_told_apart_by_what_their_rung_gives_them() {
        use Isolation::{Landlock, Namespaces, None, Uid};
        let shared = |walled| Slots::SharedUser { walled };
        for (isolation, network, own_users, slots) in [
            (Namespaces, Network::Off, true, Slots::Apart),
            (Namespaces, Network::Off, false, Slots::Apart),
            (Namespaces, Network::On, true, Slots::OwnUsers),
            (Namespaces, Network::On, false, shared(true)),
            (Uid, Network::Off, true, Slots::OwnUsers),
            (Landlock, Network::Off, false, shared(true)),
            (None, Network::On, true, shared(false)),
        ] {
            assert_eq!(Slots::of(isolation, network, own_users), slots, "{isolation} {network:?}");
        }
    }

    #[test]
    fn no_user_is_believed_where_slots_can_be_any() {
        let keeper = Keeper { finder: None, slots: Slots::AnyUser, own_uid: 0, mark: None };
        for uid in [0, 1_000, 65_534] {
            assert_eq!(keeper.judge(Found { uid, inode: 7 }), Sight::HeldBy(7), "{uid}");
        }
    }

    #[test]
    fn a_socket_is_judged_by_its_user_and_by_being_open() {
        let keeper = |slots| Keeper { finder: None, slots, own_uid: 1_000, mark: None };
        let found = |uid, inode| Found { uid, inode };
        let slot = uids::any_slot();
        for slots in [Slots::Apart, Slots::OwnUsers, Slots::SharedUser { walled: true }] {
            let keeper = keeper(slots);
            for (uid, inode) in [(0, 0), (1_000, 0), (slot, 0)] {
                let sight = keeper.judge(found(uid, inode));
                assert_eq!(sight, Sight::Decided(Err(Refused::Closed)), "{slots:?} {uid}");
            }
            assert_eq!(keeper.judge(found(slot, 7)), Sight::Decided(Err(Refused::Slot)));
            assert_eq!(keeper.judge(found(1_001, 7)), Sight::Decided(Ok(())));
            let own = keeper.judge(found(1_000, 7));
            match slots {
                Slots::SharedUser { .. } => assert_eq!(own, Sight::HeldBy(7)),
                _ => assert_eq!(own, Sight::Decided(Ok(()))),
            }
        }
    }

    #[test]
    fn where_nothing_can_be_found_the_machines_own_clients_are_refused() {
        let slots = Slots::OwnUsers;
        let keeper = Keeper { finder: None, slots, own_uid: 0, mark: None };
        let look = |peer: &str| {
            let local: SocketAddr = "127.0.0.1:9".parse().unwrap();
            keeper.look(Ends::new(peer.parse().unwrap(), local))
        };
        assert_eq!(look("127.0.0.1:9"), Sight::Decided(Err(Refused::Unknown)));
        assert_eq!(look("192.0.2.1:9"), Sight::Decided(Ok(())));
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_at_once_is_refused_and_so_is_the_server_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for slots in [Slots::OwnUsers, Slots::SharedUser { walled: true }] {
            let door = Door::keep(slots).unwrap();
            drop(TcpStream::connect(address).await.unwrap());
            let (accepted, _) = listener.accept().await.unwrap();
            assert_eq!(door.admit(&accepted).await, Err(Refused::Closed), "{slots:?}");
            // With a reset: the socket is gone for good, and what it sent is still read.
            let client = TcpStream::connect(address).await.unwrap();
            client.set_zero_linger().unwrap();
            drop(client);
            let (accepted, _) = listener.accept().await.unwrap();
            assert_eq!(door.admit(&accepted).await, Err(Refused::Closed), "{slots:?}");
        }
        let door = Door::keep(Slots::SharedUser { walled: true }).unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(door.admit(&accepted).await, Err(Refused::Slot));
    }
}
