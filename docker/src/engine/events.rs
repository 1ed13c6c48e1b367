//! What happens at the engine, without gaps.
//!
//! Invariant: whoever looks at everything on each [`News::LookAgain`], and hears the events after
//! it, misses nothing. An event may be told twice.

use super::{Engine, EngineError, clock::unix_seconds, error::Doing};
use bollard::{
    errors::Error,
    models::{EventMessage, SystemInfo},
    query_parameters::EventsOptions,
};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use std::{collections::HashMap, time::Duration};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::AbortHandle,
    time::{Instant, sleep},
};

/// News that may wait for their reader. More are dropped, and it is told to look again.
const UNREAD_MAX: usize = 1_024;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

type Filters = HashMap<String, Vec<String>>;

/// After which there may be other images than before, or others of a name.
const IMAGE_ACTIONS: [&str; 6] = ["tag", "untag", "delete", "import", "load", "pull"];

/// Which events of containers.
#[derive(Debug, Clone)]
pub struct Selector {
    pub label: String,
    pub value: String,
    /// `die`, `destroy`, …
    pub actions: &'static [&'static str],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Events from before this may have been lost: at the start, after a cut, or of a slow reader.
    LookAgain,
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub action: String,
    /// Of the container, or the image.
    pub id: String,
    /// Its labels are among them.
    pub attributes: HashMap<String, String>,
}

/// Connects again and again, until it is dropped.
#[derive(Debug)]
pub struct NewsFeed {
    news: mpsc::Receiver<News>,
    pump: AbortHandle,
}

impl NewsFeed {
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // The runtime shuts down: nobody waits for an answer.
            None => std::future::pending().await,
        }
    }
}

impl Drop for NewsFeed {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Engine {
    pub fn events(&self, selector: Selector) -> NewsFeed {
        self.feed(HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), selector.actions.iter().map(ToString::to_string).collect()),
            ("label".to_owned(), vec![format!("{}={}", selector.label, selector.value)]),
        ]))
    }

    /// Of all images: those that go are not known by their labels any more.
    pub fn image_events(&self) -> NewsFeed {
        self.feed(HashMap::from([
            ("type".to_owned(), vec!["image".to_owned()]),
            ("event".to_owned(), IMAGE_ACTIONS.map(str::to_owned).to_vec()),
        ]))
    }

    fn feed(&self, filters: Filters) -> NewsFeed {
        let (sender, news) = mpsc::channel(UNREAD_MAX);
        let pump = tokio::spawn(pump(self.clone(), filters, sender)).abort_handle();
        NewsFeed { news, pump }
    }

    async fn open_events(
        &self,
        filters: &Filters,
        since: &mut Option<String>,
    ) -> Result<BoxStream<'static, Result<EventMessage, Error>>, EngineError> {
        // Its own clock: ours may differ. It also shows that the engine answers.
        let SystemInfo { system_time, .. } = self.info().await?;
        if since.is_none() {
            *since = system_time.and_then(|date| unix_seconds(&date)).map(|it| it.to_string());
        }
        let filters = Some(filters.clone());
        let options = EventsOptions { since: since.clone(), until: None, filters };
        // Held by the stream: it has to outlive this call.
        let docker = self.docker().await?;
        Ok(docker.events(Some(options)).boxed())
    }
}

async fn pump(engine: Engine, filters: Filters, news: mpsc::Sender<News>) {
    let mut since = None;
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let cut = match engine.open_events(&filters, &mut since).await {
            Ok(events) => {
                // Whoever looks now sees what was before; what comes after is heard, for it is
                // asked for from an earlier moment on.
                if news.send(News::LookAgain).await.is_err() {
                    return;
                }
                forward(events, &news, &mut since).await
            }
            Err(error) => Err(error),
        };
        if news.is_closed() {
            return;
        }
        if began.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        match cut {
            Ok(()) => tracing::debug!("the engine ended its stream of events"),
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, why, "no events from the engine");
            }
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// To the end of the stream, or of its reader.
async fn forward(
    mut events: impl Stream<Item = Result<EventMessage, Error>> + Unpin,
    news: &mpsc::Sender<News>,
    since: &mut Option<String>,
) -> Result<(), EngineError> {
    loop {
        let message = tokio::select! {
            () = news.closed() => return Ok(()),
            message = events.next() => message,
        };
        let Some(message) = message else { return Ok(()) };
        let message = message.doing("read events")?;
        if let Some(nanos) = message.time_nano {
            *since = Some(format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000));
        }
        let Some(event) = read(message) else { continue };
        match news.try_send(News::Event(event)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("events come faster than they are read");
                if news.send(News::LookAgain).await.is_err() {
                    return Ok(());
                }
            }
            Err(TrySendError::Closed(_)) => return Ok(()),
        }
    }
}

/// Engines from version 29 on have no other fields than these.
fn read(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    Some(Event { action: message.action?, id: actor.id?, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;

    fn message(nanos: i64) -> EventMessage {
        EventMessage {
            action: Some("die".to_owned()),
            actor: Some(EventActor { id: Some(nanos.to_string()), attributes: None }),
            time_nano: Some(nanos),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_to_look_again_and_a_later_stream_goes_on_from_the_last_event() {
        let (sender, mut news) = mpsc::channel(2);
        let mut since = None;
        let messages = [1, 2, 3, 4].map(|n| Ok(message(n * 1_500_000_000)));
        let read = async {
            let mut told = Vec::new();
            while let Some(news) = news.recv().await {
                told.push(news);
            }
            told
        };
        let forwarded = async {
            let forwarded = forward(futures_util::stream::iter(messages), &sender, &mut since);
            let forwarded = forwarded.await;
            drop(sender);
            forwarded
        };
        // In this order: it is forwarded until the channel is full, and only then read.
        let (forwarded, told) = tokio::join!(forwarded, read);
        forwarded.unwrap();
        assert!(told.contains(&News::LookAgain), "{told:?}");
        let last = told.last().unwrap();
        assert!(matches!(last, News::Event(event) if event.id == "6000000000"), "{told:?}");
        assert_eq!(since.as_deref(), Some("6.000000000"));
    }
}
