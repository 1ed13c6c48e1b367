use super::{student::Rules, *};
use crate::{
    Environment, Environments,
    wire::{FromContainer, RunStudent},
};
use proptest::prelude::*;
use slotmux_protocol::CausedBy;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: Duration = Duration::from_secs(1);

fn plan(ports: usize) -> Plan {
    let environment = Environment {
        id: "sha256:1".to_owned(),
        created: 0,
        ports: Vec::new(),
        advertised: true,
        title: "default".to_owned(),
        runtime: "runc".to_owned(),
        run_as_root: false,
    };
    let named = BTreeMap::from([("default".to_owned(), environment)]);
    let rules = Rules {
        environments: Environments(BTreeMap::from([("docker".to_owned(), named)])),
        environment_type: "docker".to_owned(),
        environment: "default".to_owned(),
        soft: 10 * SECOND,
        hard: 30 * SECOND,
        memory_mb: 100,
        slot_memory_mb: 400,
        students_max: 3,
        ssh: true,
    };
    Plan {
        soft: 10 * SECOND,
        hard: 30 * SECOND,
        ports,
        has_folder: true,
        inspects: false,
        speaks: true,
        students: Some(rules),
    }
}

fn wish(socket_id: &str) -> RunStudent {
    RunStudent { socket_id: socket_id.to_owned(), ..RunStudent::default() }
}

fn result() -> FromContainer {
    FromContainer::Result(Value::Map(vec![("result".into(), "success".into())]))
}

fn exited(code: i64) -> End {
    End::Exited { code, out_of_memory: false }
}

/// A job that has been told this, and what it has asked for.
fn told(job: &mut Job, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    events.into_iter().flat_map(|event| job.apply(event)).collect()
}

fn running() -> Job {
    let (mut job, _) = Job::begin(plan(0));
    told(
        &mut job,
        [
            Event::FolderMade,
            Event::Made(Who::Main, "m".to_owned()),
            Event::Attached,
            Event::Started(Who::Main),
        ],
    );
    job
}

fn answer(effects: &[Effect]) -> Option<&Conclusion> {
    effects.iter().find_map(|it| match it {
        Effect::Answer(conclusion) => Some(conclusion),
        _ => None,
    })
}

fn marked(effects: &[Effect]) -> Option<Mark> {
    match answer(effects)? {
        Conclusion::Marked(mark) => Some(*mark),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_is_answered_with_its_result_and_leaves_nothing() {
    let (mut job, first) = Job::begin(plan(1));
    assert_eq!(first, [Effect::TakePorts(Who::Main, 1)]);
    assert_eq!(job.apply(Event::PortsTaken(Who::Main)), [Effect::MakeFolder]);
    assert!(job.apply(Event::FolderMade).contains(&Effect::CreateMain));
    let attach = job.apply(Event::Made(Who::Main, "m".to_owned()));
    assert_eq!(attach, [Effect::Attach(Attach::First)], "before it is started");
    assert_eq!(job.apply(Event::Attached), [Effect::Start(Who::Main)]);
    job.apply(Event::Started(Who::Main));
    job.apply(Event::Heard(result()));
    let last = told(&mut job, [Event::StreamEnded(StreamEnd::Ended), Event::Died(Who::Main, 1)]);
    assert!(last.contains(&Effect::Remove(Who::Main)));
    assert!(
        matches!(answer(&last), Some(Conclusion::Ended { result: Some(_), .. })),
        "whatever its exit code: {last:?}"
    );
    let last = told(&mut job, [Event::Removed(Who::Main), Event::FolderRemoved]);
    assert_eq!(last, [Effect::RemoveFolder, Effect::GivePorts(Who::Main), Effect::Over]);
}

#[test]
fn a_limit_never_overrides_a_result_that_came_before() {
    for event in [Event::TimeUp(Clock::Hard(Who::Main)), Event::CpuUp(Who::Main)] {
        let mut job = running();
        job.apply(Event::Heard(result()));
        let effects = told(&mut job, [event.clone(), Event::Removed(Who::Main)]);
        assert!(matches!(answer(&effects), Some(Conclusion::Ended { result: Some(_), .. })));
        let mut job = running();
        let effects = told(&mut job, [event, Event::Heard(result()), Event::Removed(Who::Main)]);
        assert_eq!(marked(&effects), Some(Mark::Timeout), "one that came after does not count");
    }
}

#[test]
fn a_result_is_told_when_no_process_is_left_and_the_last_one_counts() {
    let mut job = running();
    assert!(job.apply(Event::Heard(result())).contains(&Effect::WatchProcesses));
    let effects = job.apply(Event::Emptied);
    assert!(matches!(effects[..], [Effect::SetClock(Clock::Settle, _)]), "{effects:?}");
    let last = Value::Map(vec![("result".into(), "failed".into())]);
    job.apply(Event::Heard(FromContainer::Result(last.clone())));
    let effects = job.apply(Event::TimeUp(Clock::Settle));
    let Some(Conclusion::Ended { result, .. }) = answer(&effects) else { panic!("{effects:?}") };
    assert_eq!(*result, Some(last));
}

#[test]
fn a_kill_is_for_memory_whichever_news_comes_first() {
    let killed = || [Event::StreamEnded(StreamEnd::Ended), Event::Ended(Who::Main, exited(137))];
    let seen = || Event::MemorySeen(Who::Main);

    let mut job = running();
    let effects = told(&mut job, killed());
    assert_eq!(answer(&effects), None, "{effects:?}");
    assert!(effects.iter().any(|it| matches!(it, Effect::SetClock(Clock::Doubt, _))));
    assert_eq!(marked(&told(&mut job, [seen(), Event::Removed(Who::Main)])), Some(Mark::Overflow));

    let mut job = running();
    job.apply(seen());
    let effects = told(&mut job, killed().into_iter().chain([Event::Removed(Who::Main)]));
    assert_eq!(marked(&effects), Some(Mark::Overflow));

    let mut job = running();
    job.apply(seen());
    job.apply(Event::StreamEnded(StreamEnd::Ended));
    let effects = told(&mut job, [Event::Ended(Who::Main, exited(1)), Event::Removed(Who::Main)]);
    assert!(matches!(answer(&effects), Some(Conclusion::Ended { .. })), "it went on without it");

    let mut job = running();
    told(&mut job, killed());
    let effects = told(&mut job, [Event::TimeUp(Clock::Doubt), Event::Removed(Who::Main)]);
    assert!(matches!(answer(&effects), Some(Conclusion::Ended { .. })), "nobody said so");
}

#[test]
fn one_mark_overrides_another_until_it_was_told() {
    let mut job = running();
    let effects = told(
        &mut job,
        [
            Event::CpuUp(Who::Main),
            Event::KillAsked,
            Event::MemoryUp(Who::Main),
            Event::Removed(Who::Main),
            Event::KillAsked,
        ],
    );
    assert_eq!(marked(&effects), Some(Mark::Killed));
    assert_eq!(effects.iter().filter(|it| matches!(it, Effect::Answer(_))).count(), 1);
}

#[test]
fn a_kill_before_the_container_is_there_is_answered_at_once_and_nothing_is_started() {
    let (mut job, _) = Job::begin(plan(0));
    assert_eq!(marked(&job.apply(Event::KillAsked)), Some(Mark::Killed));
    assert_eq!(job.apply(Event::FolderMade), [Effect::RemoveFolder]);
    assert_eq!(job.apply(Event::FolderRemoved), [Effect::Over]);

    let (mut job, _) = Job::begin(plan(0));
    job.apply(Event::FolderMade);
    assert_eq!(marked(&job.apply(Event::KillAsked)), Some(Mark::Killed));
    let made = Event::Made(Who::Main, "m".to_owned());
    assert_eq!(job.apply(made), [Effect::Remove(Who::Main)]);
    assert_eq!(job.apply(Event::Removed(Who::Main)), [Effect::RemoveFolder]);
}

#[test]
fn a_container_that_does_not_start_is_removed_and_one_that_may_be_there_is_looked_for() {
    let mut job = Job::begin(plan(0)).0;
    told(&mut job, [Event::FolderMade, Event::Made(Who::Main, "m".to_owned()), Event::Attached]);
    // An engine says that it died, too.
    let effects = told(
        &mut job,
        [Event::Died(Who::Main, 127), Event::NotStarted(Who::Main, "no such file".to_owned())],
    );
    assert!(effects.contains(&Effect::Remove(Who::Main)));
    let Some(Conclusion::Failed(failure)) = answer(&effects) else { panic!("{effects:?}") };
    assert_eq!(failure.text, "Cannot start container");

    for (in_doubt, removes) in [(true, true), (false, false)] {
        let mut job = Job::begin(plan(0)).0;
        job.apply(Event::FolderMade);
        let why = NotMade { why: "silent".to_owned(), in_doubt };
        let effects = job.apply(Event::NotMade(Who::Main, why));
        assert_eq!(effects.contains(&Effect::Remove(Who::Main)), removes);
        assert!(matches!(answer(&effects), Some(Conclusion::Failed(_))));
    }
}

#[test]
fn a_container_that_ends_before_its_start_is_answered_is_heard_nevertheless() {
    let mut job = Job::begin(plan(0)).0;
    told(&mut job, [Event::FolderMade, Event::Made(Who::Main, "m".to_owned()), Event::Attached]);
    let effects = told(
        &mut job,
        [
            Event::Died(Who::Main, 1),
            Event::StreamEnded(StreamEnd::Ended),
            Event::Started(Who::Main),
        ],
    );
    let Some(Conclusion::Ended { result: None, end, .. }) = answer(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(*end, Some(exited(1)));
}

#[test]
fn a_lost_event_is_found_by_a_look_and_a_broken_connection_is_made_again() {
    let mut job = running();
    job.apply(Event::StreamEnded(StreamEnd::Ended));
    assert_eq!(job.apply(Event::TimeUp(Clock::Look)), [Effect::Look(Who::Main)]);
    assert_eq!(job.apply(Event::MayHaveEnded(Who::Main)), [], "one look at a time");
    assert_eq!(
        job.apply(Event::Runs(Who::Main)),
        [Effect::Look(Who::Main), Effect::Attach(Attach::Again)]
    );
    assert_eq!(job.apply(Event::Attached), [], "it is not told again what to do");
    job.apply(Event::Ended(Who::Main, exited(0)));
    let effects = job.apply(Event::StreamEnded(StreamEnd::Ended));
    assert!(effects.contains(&Effect::Recover), "what was said meanwhile is lost: {effects:?}");
    let effects = job.apply(Event::Recovered(Some(Value::Nil)));
    assert!(matches!(answer(&effects), Some(Conclusion::Ended { result: Some(_), .. })));
}

#[test]
fn an_engine_that_is_silent_does_not_keep_an_answer_back() {
    let mut job = running();
    let effects = job.apply(Event::KillAsked);
    assert!(effects.iter().any(|it| matches!(it, Effect::SetClock(Clock::Patience, _))));
    assert_eq!(marked(&job.apply(Event::TimeUp(Clock::Patience))), Some(Mark::Killed));

    let mut job = Job::begin(plan(0)).0;
    job.apply(Event::FolderMade);
    let effects = job.apply(Event::TimeUp(Clock::Launch));
    assert!(matches!(answer(&effects), Some(Conclusion::Failed(_))));
}

#[test]
fn a_student_is_announced_then_started_and_its_code_told() {
    let mut job = running();
    let effects = job.apply(Event::Heard(FromContainer::RunStudent(wish("s"))));
    let [Effect::CreateStudent(0, spec)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((spec.soft, spec.hard, spec.memory_mb), (10 * SECOND, 30 * SECOND, 100));
    let student = Who::Student(0);
    let socket_id = "s".to_owned();
    let effects = job.apply(Event::Made(student, "c".to_owned()));
    let container_id = "c".to_owned();
    let started = Saying::StudentStarted { socket_id: socket_id.clone(), container_id };
    assert_eq!(effects, [Effect::Say(started), Effect::Start(student)]);
    job.apply(Event::Started(student));
    let effects = job.apply(Event::Died(student, 7));
    let ended = |code| Effect::Say(Saying::StudentEnded { socket_id: socket_id.clone(), code });
    assert_eq!(effects, [ended(7), Effect::Remove(student)]);

    for (event, code) in [
        (Event::MemoryUp(Who::Student(1)), 252),
        (Event::CpuUp(Who::Student(1)), 253),
        (Event::TimeUp(Clock::Hard(Who::Student(1))), 253),
        (Event::NotStarted(Who::Student(1), String::new()), 254),
        (Event::Ended(Who::Student(1), End::Vanished), 254),
        (Event::Ended(Who::Student(1), End::Exited { code: 137, out_of_memory: true }), 252),
    ] {
        let mut job = running();
        job.apply(Event::Heard(FromContainer::RunStudent(wish("other"))));
        job.apply(Event::Heard(FromContainer::RunStudent(wish("s"))));
        let student = Who::Student(1);
        job.apply(Event::Made(student, "c".to_owned()));
        if !matches!(event, Event::NotStarted(..)) {
            job.apply(Event::Started(student));
        }
        let effects = told(&mut job, [event.clone(), Event::Died(student, 137)]);
        assert_eq!(effects, [ended(code), Effect::Remove(student)], "{event:?}");
    }
}

#[test]
fn wishes_that_cannot_be_granted_are_answered_and_the_parents_limits_hold() {
    let refused = |asked: RunStudent| {
        let mut job = running();
        let effects = job.apply(Event::Heard(FromContainer::RunStudent(asked)));
        matches!(&effects[..], [Effect::Say(Saying::StudentEnded { code: 254, .. })])
    };
    for bad in ["", "..", "a/b", "a:b", "a\0b", &"x".repeat(101)] {
        assert!(refused(wish(bad)), "{bad:?}");
    }
    assert!(refused(RunStudent { environment: Some("none".to_owned()), ..wish("s") }));
    assert!(refused(RunStudent { run_as_root: true, ..wish("s") }));

    let mut job = running();
    let asked = RunStudent { time: 99 * SECOND, hard_time: SECOND, memory_mb: 5, ..wish("s") };
    let effects = job.apply(Event::Heard(FromContainer::RunStudent(asked.clone())));
    let [Effect::CreateStudent(_, spec)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((spec.soft, spec.hard, spec.memory_mb), (10 * SECOND, SECOND, 20));
    let twice = job.apply(Event::Heard(FromContainer::RunStudent(asked)));
    assert_eq!(twice, [], "an answer would be taken for the first one's");
}

#[test]
fn students_are_bounded_in_number_and_memory() {
    let grant = |job: &mut Job, socket: &str, memory_mb| {
        let asked = RunStudent { memory_mb, ..wish(socket) };
        let effects = job.apply(Event::Heard(FromContainer::RunStudent(asked)));
        matches!(&effects[..], [Effect::CreateStudent(..)])
    };
    let mut job = running();
    assert!(["a", "b", "c"].iter().all(|it| grant(&mut job, it, 20)));
    assert!(!grant(&mut job, "d", 20), "the fourth");

    let mut job = running();
    job.plan.students.as_mut().unwrap().slot_memory_mb = 210;
    assert!(grant(&mut job, "a", 100));
    assert!(!grant(&mut job, "b", 20), "ten are left");
    let student = Who::Student(0);
    told(
        &mut job,
        [Event::Made(student, "c".to_owned()), Event::Started(student), Event::Died(student, 0)],
    );
    assert!(grant(&mut job, "c", 100), "the first one is over");
}

#[test]
fn a_student_that_is_being_made_when_its_parent_ends_is_removed() {
    let mut job = running();
    job.apply(Event::Heard(FromContainer::RunStudent(wish("s"))));
    let effects = told(&mut job, [Event::KillAsked, Event::Removed(Who::Main)]);
    assert_eq!(marked(&effects), Some(Mark::Killed));
    assert!(!effects.contains(&Effect::RemoveFolder), "it is mounted: {effects:?}");
    let student = Who::Student(0);
    assert_eq!(job.apply(Event::Made(student, "c".to_owned())), [Effect::Remove(student)]);
    assert_eq!(job.apply(Event::Removed(student)), [Effect::RemoveFolder]);
}

mod world;

use world::From;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_there_is_one_answer_and_nothing_is_left(
        ports in 0usize..2,
        from in prop::sample::select(vec![From::Begin, From::Warm, From::Adopted]),
        choices in prop::collection::vec(any::<(u8, u8)>(), 0..120),
    ) {
        let mut world = world::World::begin(plan(ports), from);
        for (what, which) in choices {
            world.step(what, which);
        }
        world.finish();
        world.check();
    }
}
