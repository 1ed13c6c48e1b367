//! The actor: the one writer of the pool's state, on a thread of its own.
//!
//! Only this file knows actix. Handlers never wait: slow work is a task that reports back by mail.
//! The mailbox is no bound; admission is the handle's business.

mod clock;
mod grants;
mod perform;
mod runtime;
mod shell;
#[cfg(test)]
mod tests;

pub(crate) use clock::Clock;
pub(crate) use grants::Grant;
pub(crate) use shell::{News, Order, Parts, Shell, TellNews};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, WeakAddr};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How exact deadlines and expiries are.
const TICK: Duration = Duration::from_millis(20);

pub(crate) enum Mail {
    Order(Order),
    News(News),
}

impl Message for Mail {
    type Result = ();
}

struct PoolActor {
    shell: Shell,
    /// Last: whoever waits for the end finds the journal written.
    _alive: DropGuard,
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.shell.begin();
        ctx.run_interval(TICK, |actor, _| actor.shell.tick());
    }
}

impl Handler<Mail> for PoolActor {
    type Result = ();

    fn handle(&mut self, mail: Mail, ctx: &mut Self::Context) {
        match mail {
            Mail::Order(order) => self.shell.order(order),
            Mail::News(news) => self.shell.news(news),
        }
        if self.shell.is_done() {
            ctx.stop();
        }
    }
}

/// The way to the actor. Mail to one that has ended is dropped, with the reply that it carries.
#[derive(Clone)]
pub(crate) struct Mailbox(actix::Addr<PoolActor>);

impl Mailbox {
    pub(crate) fn post(&self, order: Order) {
        self.0.do_send(Mail::Order(order));
    }

    pub(crate) fn downgrade(&self) -> WeakMailbox {
        WeakMailbox(self.0.downgrade())
    }
}

/// Does not keep the actor alive.
#[derive(Clone)]
pub(crate) struct WeakMailbox(WeakAddr<PoolActor>);

impl WeakMailbox {
    pub(crate) fn post(&self, order: Order) {
        if let Some(address) = self.0.upgrade() {
            address.do_send(Mail::Order(order));
        }
    }

    fn news(&self, news: News) {
        if let Some(address) = self.0.upgrade() {
            address.do_send(Mail::News(news));
        }
    }
}

/// Starts the actor in the `LocalSet` (or actix system) of this thread. `closed` is cancelled when
/// it has ended, for whatever reason.
pub(crate) fn start(
    make: impl FnOnce(TellNews, WeakMailbox) -> Shell,
    closed: CancellationToken,
) -> Mailbox {
    let address = PoolActor::create(|ctx| {
        let home = WeakMailbox(ctx.address().downgrade());
        let news = home.clone();
        let shell = make(Arc::new(move |it| news.news(it)), home);
        PoolActor { shell, _alive: closed.drop_guard() }
    });
    Mailbox(address)
}

/// Starts the actor on a thread of its own, which ends with it.
pub(crate) fn start_thread(
    make: impl FnOnce(TellNews, WeakMailbox) -> Shell + Send + 'static,
    closed: CancellationToken,
) -> std::io::Result<tokio::sync::oneshot::Receiver<Mailbox>> {
    let (started, mailbox) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("slotmux-pool".to_owned()).spawn(move || {
        actix::System::new().block_on(async move {
            let mailbox = start(make, closed.clone());
            // Nobody waits any more: then the actor ends with its last address.
            let _ = started.send(mailbox);
            closed.cancelled().await;
        });
    })?;
    Ok(mailbox)
}
