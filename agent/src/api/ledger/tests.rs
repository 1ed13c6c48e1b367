use super::*;
use crate::{GradedDone, Verdict};
use proptest::prelude::*;
use slotmux_protocol::{CausedBy, job::JobPhase};

const ROOM: Room = Room { results_max: 3, bytes_max: 10_000 };

fn name(number: usize) -> JobName {
    JobName::new(format!("j-{number}")).unwrap()
}

fn done(text_bytes: usize) -> Arc<JobDone> {
    let text = "x".repeat(text_bytes);
    Arc::new(JobDone::Graded(GradedDone::without_result(
        Verdict::Failed,
        text,
        "",
        CausedBy::Policy,
    )))
}

fn add(ledger: &mut Ledger, number: usize) {
    ledger.add(Record::new(name(number), Some([0; 32]), 100, 1));
}

fn with_done(numbers: std::ops::RangeInclusive<usize>) -> Ledger {
    let mut ledger = Ledger::new(ROOM);
    for number in numbers {
        add(&mut ledger, number);
        ledger.finish(&name(number), done(0), 5);
    }
    ledger
}

fn known(ledger: &Ledger) -> Vec<String> {
    ledger.list().map(|status| status.job_id.to_string()).collect()
}

#[test]
fn a_job_goes_through_its_phases_and_tells_each_once() {
    let mut ledger = Ledger::new(ROOM);
    add(&mut ledger, 1);
    assert_eq!((ledger.held_bytes(), ledger.open()), (100, 1));
    ledger.change(&name(1), |record| record.start(2));
    ledger.change(&name(1), |record| record.start(3));
    ledger.finish(&name(1), done(7), 4);
    ledger.finish(&name(1), done(9), 5);
    assert_eq!((ledger.held_bytes(), ledger.open(), ledger.results().0), (0, 0, 1));
    let Found::Job(record) = ledger.find(&name(1)) else { panic!("not found") };
    let status = record.status();
    assert_eq!(
        (status.phase, status.started_at_ms, status.done_at_ms),
        (JobPhase::Done, Some(2), Some(4))
    );
    let events: Vec<_> = record.events_after(0).iter().map(|it| (it.seq, it.at_ms)).collect();
    assert_eq!(events, [(1, 1), (2, 2), (3, 4)]);
    assert_eq!(record.events_after(2)[0].status.as_ref(), Some(&status));
    assert!(record.events_after(3).is_empty() && record.events_after(9).is_empty());
}

#[test]
fn what_was_fetched_goes_first_and_then_the_oldest() {
    let mut ledger = with_done(1..=3);
    ledger.fetch(&name(2));
    ledger.fetch(&name(2));
    add(&mut ledger, 4);
    assert_eq!(ledger.finish(&name(4), done(0), 6), []);
    assert_eq!(known(&ledger), ["j-1", "j-3", "j-4"]);
    add(&mut ledger, 5);
    assert_eq!(ledger.finish(&name(5), done(0), 6), [name(1)]);
    assert_eq!((known(&ledger).len(), ledger.unfetched_dropped()), (3, 1));
    assert!(matches!(ledger.find(&name(1)), Found::Gone));
    assert!(matches!(ledger.find(&name(9)), Found::Nothing));
}

#[test]
fn a_large_result_makes_room_for_itself_and_is_kept_even_alone() {
    let mut ledger = with_done(1..=2);
    add(&mut ledger, 3);
    add(&mut ledger, 4);
    assert_eq!(ledger.finish(&name(3), done(20_000), 6), [name(1), name(2)]);
    assert_eq!(known(&ledger), ["j-3", "j-4"], "what is not done is not forgotten");
    assert_eq!(ledger.finish(&name(4), done(0), 7), [name(3)]);
}

#[test]
fn only_what_is_done_can_be_forgotten() {
    let mut ledger = with_done(1..=1);
    add(&mut ledger, 2);
    ledger.forget(&name(1));
    ledger.forget(&name(2));
    ledger.forget(&name(3));
    assert_eq!(known(&ledger), ["j-2"]);
    assert!(matches!(ledger.find(&name(1)), Found::Gone));
    assert_eq!(ledger.results(), (0, 0));
}

#[test]
fn a_request_is_for_the_job_that_it_made_and_any_for_one_of_before() {
    let known = Record::new(name(1), Some([1; 32]), 0, 1);
    assert!(known.is_for(&[1; 32]) && !known.is_for(&[2; 32]));
    assert!(Record::new(name(1), None, 0, 1).is_for(&[2; 32]));
}

proptest! {
    #[test]
    fn the_books_balance_after_anything(
        steps in prop::collection::vec((0..4_u8, 0..12_usize, 0..6_000_usize), 0..200)
    ) {
        let mut ledger = Ledger::new(ROOM);
        let mut open = HashSet::new();
        for (step, number, bytes) in steps {
            match step {
                0 if matches!(ledger.find(&name(number)), Found::Nothing) => {
                    add(&mut ledger, number);
                    open.insert(number);
                }
                1 => {
                    ledger.finish(&name(number), done(bytes), 2);
                    open.remove(&number);
                }
                2 => ledger.fetch(&name(number)),
                _ => ledger.forget(&name(number)),
            }
            let records: Vec<_> = ledger.jobs.values().collect();
            let results = records.iter().filter(|it| it.done().is_some()).count();
            let bytes = records.iter().map(|it| it.result_bytes()).sum::<usize>();
            prop_assert_eq!(ledger.results(), (results, bytes));
            prop_assert_eq!(ledger.held_bytes(), 100 * open.len());
            prop_assert_eq!(ledger.open(), open.len());
            prop_assert!(results <= 1 || !ledger.is_over());
            prop_assert_eq!(ledger.names.len(), ledger.jobs.len());
        }
    }
}
