//! A pool without an actor: leases in a map, their calls over a real link.

use super::super::{ApiSettings, Leases, router};
use crate::{
    link::{
        Link,
        peer::{Server, done},
    },
    routes::{LeaseEnd, Pulse, Route, Routes},
};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use http_body_util::BodyExt;
use serde_json::Value;
use slotmux_protocol::{
    CallLimits, Code, Ended, Epoch, Isolation, LeaseId, Problem, ProfileName, SlotIndex, ToolCall,
    ToolResult, TrajectoryId,
    link::Call,
    v1::{AcquireRequest, Event, EventKind, Lease, ProfileStatus, Seconds, SlotCounts, Status},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::broadcast, time::Instant};
use tower::ServiceExt;

#[derive(Clone)]
pub(super) struct FakePool(Arc<Inner>);

struct Inner {
    link: Link,
    routes: Routes,
    events: broadcast::Sender<Event>,
    state: Mutex<State>,
    /// The commands that the container was asked to run.
    asked: Arc<Mutex<Vec<(SlotIndex, String)>>>,
}

#[derive(Default)]
struct State {
    last: u64,
    holders: HashMap<TrajectoryId, Lease>,
    /// What the next acquire answers, instead of a lease.
    refuse: Option<Problem>,
    panic: bool,
    unlinked: bool,
    acquires: u32,
}

impl FakePool {
    /// Its container answers calls as [`act`] says.
    pub(super) async fn start() -> Self {
        let server = Server::start().await;
        let (link, mut news) = server.link(Duration::from_hours(1));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asking = Arc::clone(&asked);
        server.answering("boot-1", move |call| {
            if let ToolCall::Bash(bash) = &call.tool {
                asking.lock().unwrap().push((call.slot, bash.command.clone()));
            }
            act(call)
        });
        // Up: a call is sent at once.
        assert!(news.recv().await.is_some());
        let (events, _) = broadcast::channel(4);
        let state = Mutex::default();
        Self(Arc::new(Inner { link, routes: Routes::new(), events, state, asked }))
    }

    pub(super) fn refuse(&self, problem: Problem) {
        self.0.state.lock().unwrap().refuse = Some(problem);
    }

    pub(super) fn panic(&self) {
        self.0.state.lock().unwrap().panic = true;
    }

    pub(super) fn acquires(&self) -> u32 {
        self.0.state.lock().unwrap().acquires
    }

    pub(super) fn calls(&self) -> usize {
        self.0.link.calls()
    }

    pub(super) fn asked(&self, slot: u16) -> Vec<String> {
        let asked = self.0.asked.lock().unwrap();
        asked.iter().filter(|(of, _)| of.0 == slot).map(|(_, command)| command.clone()).collect()
    }

    pub(super) fn listeners(&self) -> usize {
        self.0.events.receiver_count()
    }

    pub(super) fn happen(&self, seq: u64, kind: EventKind, lease: Option<LeaseId>) {
        let event = Event {
            seq,
            at_ms: 0,
            kind,
            lease_id: lease,
            trajectory_id: None,
            container: None,
            slot: None,
            reason: None,
        };
        self.0.events.send(event).unwrap();
    }

    pub(super) fn end(&self, lease: LeaseId, end: LeaseEnd) {
        self.0.state.lock().unwrap().holders.retain(|_, held| held.lease_id != lease);
        self.0.routes.end(lease, end);
    }

    pub(super) fn route(&self, lease: LeaseId) -> Route {
        self.0.routes.find(lease).unwrap()
    }

    /// A lease, past HTTP.
    pub(super) fn grant(&self, trajectory: &str) -> LeaseId {
        self.grant_to(&TrajectoryId::new(trajectory).unwrap(), None).unwrap().lease_id
    }

    fn grant_to(&self, trajectory: &TrajectoryId, ttl: Option<Seconds>) -> Result<Lease, Problem> {
        let mut state = self.0.state.lock().unwrap();
        state.acquires += 1;
        if std::mem::take(&mut state.panic) {
            drop(state);
            panic!("told to");
        }
        if let Some(problem) = state.refuse.take() {
            return Err(problem);
        }
        if let Some(held) = state.holders.get(trajectory) {
            return Ok(held.clone());
        }
        state.last += 1;
        let epoch = Epoch(state.last);
        let slot = SlotIndex(u16::try_from(state.last).unwrap());
        let ttl = ttl.unwrap_or(Seconds::from_millis(60_000));
        let lease = Lease {
            lease_id: LeaseId(epoch),
            trajectory_id: trajectory.clone(),
            profile: ProfileName::new("default").unwrap(),
            container: self.0.link.container().clone(),
            slot,
            epoch,
            ttl_s: ttl,
            expires_in_s: ttl,
            expires_at_ms: 0,
            address: "127.0.0.1:1".into(),
            isolation: Isolation::Uid,
        };
        if !std::mem::take(&mut state.unlinked) {
            self.link(&lease);
        }
        state.holders.insert(trajectory.clone(), lease.clone());
        Ok(lease)
    }

    fn link(&self, lease: &Lease) {
        let route = Route {
            link: self.0.link.clone(),
            slot: lease.slot,
            epoch: lease.epoch,
            trajectory: lease.trajectory_id.clone(),
            limits: CallLimits::default(),
            pulse: Pulse::new(Instant::now()),
        };
        self.0.routes.insert(lease.lease_id, route);
    }

    /// As in a pool that was restarted: held, and not yet linked.
    pub(super) fn hold(&self, trajectory: &str) -> LeaseId {
        self.0.state.lock().unwrap().unlinked = true;
        self.grant(trajectory)
    }

    pub(super) fn link_again(&self, lease: LeaseId) {
        self.link(&self.find(lease).unwrap());
    }

    fn find(&self, lease: LeaseId) -> Result<Lease, Problem> {
        let state = self.0.state.lock().unwrap();
        let held = state.holders.values().find(|held| held.lease_id == lease);
        held.cloned().ok_or_else(|| self.0.routes.gone(lease))
    }

    pub(super) fn app(&self, settings: ApiSettings) -> App {
        App(router(self.clone(), settings))
    }
}

impl Leases for FakePool {
    fn acquire(&self, request: AcquireRequest) -> BoxFuture<'_, Result<Vec<Lease>, Problem>> {
        async move { Ok(vec![self.grant_to(&request.trajectory_id, request.ttl_s)?]) }.boxed()
    }

    fn release(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Problem>> {
        let found = self.find(lease).map(|_| self.end(lease, LeaseEnd::Released));
        ready(found).boxed()
    }

    fn release_trajectory<'a>(
        &'a self,
        trajectory: &'a TrajectoryId,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        let held = self.0.state.lock().unwrap().holders.get(trajectory).cloned();
        if let Some(held) = held {
            self.end(held.lease_id, LeaseEnd::Released);
        }
        ready(Ok(())).boxed()
    }

    fn renew(&self, lease: LeaseId, ttl: Option<Seconds>) -> BoxFuture<'_, Result<Lease, Problem>> {
        let renewed =
            self.find(lease).map(|held| Lease { ttl_s: ttl.unwrap_or(held.ttl_s), ..held });
        ready(renewed).boxed()
    }

    fn lease(&self, lease: LeaseId) -> BoxFuture<'_, Result<Lease, Problem>> {
        ready(self.find(lease)).boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, Problem>> {
        let slots = SlotCounts { free: 3, leased: 2, resetting: 1, ..SlotCounts::default() };
        let profile = ProfileStatus { slots, ..ProfileStatus::default() };
        let profiles = BTreeMap::from([("a".into(), profile.clone()), ("b".into(), profile)]);
        let uptime_s = Seconds::from_millis(1);
        ready(Ok(Status { pool: "p".into(), version: "1".into(), uptime_s, profiles })).boxed()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    fn routes(&self) -> &Routes {
        &self.0.routes
    }
}

/// `hang` is never answered, `stale` is refused, `fail` fails; all else says itself.
fn act(call: &Call) -> Option<Result<ToolResult, Problem>> {
    let ToolCall::Bash(bash) = &call.tool else { return Some(Ok(done(call, call.tool.name()))) };
    match bash.command.as_str() {
        "hang" => None,
        "stale" => Some(Err(Problem::new(Code::StaleEpoch, "the slot is open for another"))),
        "fail" => Some(Ok(ToolResult {
            success: false,
            exit_code: Some(3),
            error: "whatever the server says".into(),
            ended: Ended::Exited,
            ..done(call, "")
        })),
        command => Some(Ok(done(call, command))),
    }
}

pub(super) struct App(pub(super) Router);

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Status, code and field of a problem, with what every problem must have checked.
    pub(super) fn problem(&self) -> (u16, String, Option<String>) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let problem: Problem = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.code.status(), problem.status);
        (problem.status, problem.code.to_string(), problem.field)
    }

    pub(super) fn code(&self) -> (u16, String) {
        let (status, code, _) = self.problem();
        (status, code)
    }
}

impl App {
    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status: parts.status, headers: parts.headers, text }
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Reply {
        self.send(request(method, path, body)).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, Body::empty()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, body.to_string()).await
    }
}

pub(super) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}
