use super::*;
use slotmux_protocol::ContainerId;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    table: Table,
    now: Instant,
    sent: Option<UnboundedReceiver<Bytes>>,
}

impl Bench {
    fn new(limits: LinkLimits) -> Self {
        Self { table: Table::new(limits), now: Instant::now(), sent: None }
    }

    fn up(&mut self, boot: &str) -> usize {
        let (queue, sent) = unbounded_channel();
        let server = ServerInfo {
            container: ContainerId::new("c").unwrap(),
            version: "1".into(),
            boot_id: boot.into(),
            isolation: Isolation::Uid,
            network: Network::Off,
        };
        let (answers, cancel) = self.table.up(server, queue, self.now);
        self.sent = Some(sent);
        answers.deliver();
        cancel.len()
    }

    fn add(&mut self, id: u64, slot: u16) -> Result<oneshot::Receiver<Reply>, Problem> {
        let (reply, answer) = oneshot::channel();
        let call = NewCall {
            slot: SlotIndex(slot),
            epoch: Epoch(1),
            execution_id: ExecutionId::new(format!("x{id}")).unwrap(),
            timeout: 30 * SECOND,
            frame: Bytes::from(vec![u8::try_from(id).unwrap(); 10]),
            abandoned: if id.is_multiple_of(2) { Abandoned::Cancel } else { Abandoned::RunOn },
            output: None,
            _beating: None,
        };
        self.table.add(id, call, reply, self.now).map(|()| answer)
    }

    fn sweep(&mut self, after: Duration) -> Vec<u64> {
        self.now += after;
        let (answers, overdue) = self.table.sweep(self.now);
        answers.deliver();
        overdue
    }

    /// The ids of the calls that were sent since the last time.
    fn sent(&mut self) -> Vec<u64> {
        let Some(sent) = &mut self.sent else { return Vec::new() };
        std::iter::from_fn(|| sent.try_recv().ok()).map(|frame| u64::from(frame[0])).collect()
    }
}

fn code(answer: &mut oneshot::Receiver<Reply>) -> Code {
    answer.try_recv().unwrap().unwrap_err().code
}

fn end(answer: &mut oneshot::Receiver<Reply>) -> (Ended, CausedBy) {
    let result = answer.try_recv().unwrap().unwrap();
    assert!(!result.success && !result.error.is_empty());
    (result.ended, result.caused_by)
}

#[test]
fn calls_and_bytes_are_bounded() {
    let limits = LinkLimits { calls_max: 2, bytes_max: 100, ..LinkLimits::default() };
    let mut bench = Bench::new(limits);
    let kept = [bench.add(1, 0).unwrap(), bench.add(2, 0).unwrap()];
    assert_eq!(bench.add(3, 0).unwrap_err().code, Code::QueueFull);
    bench.up("b");
    bench.table.settle(1, Err(not_run("x"))).deliver();
    bench.add(3, 0).unwrap();
    drop(kept);

    let limits = LinkLimits { bytes_max: 20, ..LinkLimits::default() };
    let mut bench = Bench::new(limits);
    let _kept = [bench.add(1, 0).unwrap(), bench.add(2, 0).unwrap()];
    assert_eq!(bench.add(3, 0).unwrap_err().code, Code::QueueFull);
}

#[test]
fn an_unsent_call_is_refused_when_its_wait_is_over() {
    let mut bench = Bench::new(LinkLimits::default());
    let mut answer = bench.add(1, 0).unwrap();
    bench.sweep(Duration::from_millis(2_999));
    answer.try_recv().unwrap_err();
    bench.sweep(Duration::from_millis(1));
    assert_eq!(code(&mut answer), Code::ContainerUnreachable);
}

#[test]
fn an_overdue_call_is_unknown_and_the_server_is_told() {
    let mut bench = Bench::new(LinkLimits::default());
    bench.up("b");
    let mut answer = bench.add(1, 0).unwrap();
    assert!(bench.sweep(39 * SECOND).is_empty());
    assert_eq!(bench.sweep(SECOND), [1]);
    assert_eq!(end(&mut answer), (Ended::Unknown, CausedBy::Infra));
}

#[test]
fn a_call_is_not_overdue_while_those_before_it_may_run() {
    let mut bench = Bench::new(LinkLimits::default());
    bench.up("b");
    let mut first = bench.add(1, 0).unwrap();
    let mut second = bench.add(2, 0).unwrap();
    let mut elsewhere = bench.add(3, 1).unwrap();
    let mut overdue = bench.sweep(40 * SECOND);
    overdue.sort_unstable();
    assert_eq!(overdue, [1, 3]);
    assert_eq!(end(&mut first), (Ended::Unknown, CausedBy::Infra));
    assert_eq!(end(&mut elsewhere), (Ended::Unknown, CausedBy::Infra));
    second.try_recv().unwrap_err();
    assert_eq!(bench.sweep(30 * SECOND), [2]);
    // The slot is idle: the next call's time begins at once.
    let _third = bench.add(4, 0).unwrap();
    assert_eq!(bench.sweep(40 * SECOND), [4]);
}

#[test]
fn calls_are_sent_again_in_their_order() {
    let mut bench = Bench::new(LinkLimits::default());
    bench.up("b");
    let _answers: Vec<_> = (1..=9).map(|id| bench.add(id, 0).unwrap()).collect();
    assert_eq!(bench.sent(), (1..=9).collect::<Vec<_>>());
    bench.table.down();
    let _late = bench.add(10, 0).unwrap();
    assert!(bench.sent().is_empty());
    bench.up("b");
    assert_eq!(bench.sent(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn an_abandoned_call_is_not_sent_again_except_to_cancel_it() {
    let mut bench = Bench::new(LinkLimits::default());
    bench.up("b");
    for id in [1, 2] {
        drop(bench.add(id, 0).unwrap());
    }
    assert_eq!(bench.table.abandon(1), None);
    assert_eq!(bench.table.abandon(2), Some(2));
    assert_eq!(bench.sent(), [1, 2]);
    bench.table.down();
    drop(bench.add(3, 0).unwrap());
    bench.table.abandon(3);
    assert_eq!(bench.up("b"), 1);
    assert_eq!(bench.sent(), [2]);
    assert_eq!(bench.table.len(), 1);
}

#[test]
fn the_end_of_a_lease_answers_its_calls_and_no_others() {
    let revoked = LeaseEnd::Revoked { why: "oom".into() };
    for (over, expected) in [
        (LeaseEnd::Released, (Ended::Cancelled, CausedBy::Client)),
        (LeaseEnd::Expired, (Ended::Cancelled, CausedBy::Client)),
        (revoked, (Ended::Lost, CausedBy::Infra)),
    ] {
        let mut bench = Bench::new(LinkLimits::default());
        bench.up("b");
        let (mut theirs, mut others) = (bench.add(1, 0).unwrap(), bench.add(2, 1).unwrap());
        bench.table.end_lease(SlotIndex(0), Epoch(9), &over).deliver();
        theirs.try_recv().unwrap_err();
        bench.table.end_lease(SlotIndex(0), Epoch(1), &over).deliver();
        assert_eq!(end(&mut theirs), expected);
        others.try_recv().unwrap_err();
        // Its answer comes late, and finds nobody.
        bench.table.settle(1, Err(not_run("late"))).deliver();
        assert_eq!(bench.table.len(), 1);
    }
}

#[test]
fn a_closed_table_answers_all_and_takes_none() {
    let mut bench = Bench::new(LinkLimits::default());
    bench.up("b");
    let mut sent = bench.add(1, 0).unwrap();
    bench.table.down();
    let mut unsent = bench.add(2, 0).unwrap();
    bench.table.close("gone").deliver();
    assert_eq!(end(&mut sent), (Ended::Lost, CausedBy::Infra));
    assert_eq!(code(&mut unsent), Code::ContainerUnreachable);
    assert_eq!(bench.add(3, 0).unwrap_err().code, Code::ContainerUnreachable);
    bench.up("b");
    assert!(bench.table.is_closed());
    assert_eq!(bench.table.bytes, 0);
    assert!(bench.table.slots.is_empty());
}
