//! The CI platform: runs the jobs that some tasks are of, and tells when one is over, at any time:
//! also before its first task, while replicas die over it, and more than once.
//!
//! Invariant: an end counts from when a replica said that it was taken. What is not taken is told
//! again for a while, and then given up.

use std::{sync::Arc, time::Duration};

use dayfly_lease::{JobEnd, JobKey, JobKeys, TaskEnd, spawn};

use crate::{
    coverage::Moment,
    oracle,
    replica::{Fleet, Running},
    world::{Target, World},
};

/// Jobs of one run.
const JOBS: u64 = 2;

fn run_key(run: u64) -> Option<JobKey> {
    JobKey::parse(format!("sim|{run}"))
}

fn job_key(run: u64, job: u64) -> Option<JobKey> {
    JobKey::parse(format!("sim|{run}/{job}"))
}

/// Where a new task runs, by three bytes of chance. Some tokens do not tell the jobs of a run
/// apart, and most are of none.
pub fn place(world: &World, [whether, run, job]: [u8; 3]) -> JobKeys {
    // What a restored store forgets, a job's end must not have ended first.
    let one_in = if world.plan.faults.store_restore.is_some() { 12 } else { 3 };
    if world.plan.runs == 0 || !whether.is_multiple_of(one_in) {
        return JobKeys::default();
    }
    let run = u64::from(run) % world.plan.runs;
    let job = u64::from(job) % (JOBS + 1);
    JobKeys { run: run_key(run), job: if job < JOBS { job_key(run, job) } else { None } }
}

/// Runs the jobs of the plan; some never end before the run does.
pub fn begin(world: &Arc<World>, fleet: &Arc<Fleet>) {
    for run in 0..world.plan.runs {
        let keys = (0..JOBS).map(|job| job_key(run, job)).chain([run_key(run)]);
        for key in keys.flatten() {
            if world.dice.chance(7_000) {
                drop(spawn(end(Arc::clone(world), Arc::clone(fleet), key)));
            }
        }
    }
}

/// A job runs for a while and ends.
async fn end(world: Arc<World>, fleet: Arc<Fleet>, key: JobKey) {
    let dice = &world.dice;
    tokio::time::sleep(dice.between(Duration::ZERO, world.plan.lasts)).await;
    let ended = JobEnd {
        key,
        end: dice.pick(&[TaskEnd::Completed, TaskEnd::Failed, TaskEnd::Cancelled], TaskEnd::Failed),
        actor: "sim|ci".into(),
        keep: Duration::from_hours(24),
        remembered_max: 1_000,
        limit: dice.pick(&[1, 2, 50], 50),
    };
    for _ in 0..=dice.below(2) {
        tell(&world, &fleet, &ended).await;
        tokio::time::sleep(dice.millis(0, 60_000)).await;
    }
}

/// Tells it until it is taken.
async fn tell(world: &Arc<World>, fleet: &Arc<Fleet>, ended: &JobEnd) {
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        if let Some(running) = fleet.any() {
            let begun = world.incarnation(Target::Store);
            if ask(&running, ended).await {
                // Where an old copy was put in the store's place meanwhile, some of what was
                // ended before is open again.
                if world.incarnation(Target::Store) == begun {
                    world.saw(Moment::JobEnded);
                    world.event("job over", [0, 0], || ended.key.as_str().to_owned());
                    oracle::job_is_over(world, ended.key.as_str());
                }
                return;
            }
        }
        tokio::time::sleep(world.dice.millis(100, 20_000)).await;
    }
}

/// Whether the replica says that it was taken. One that dies over it says nothing.
async fn ask(running: &Running, ended: &JobEnd) -> bool {
    let answered = async {
        let answer = running.engine.close_job(ended).await;
        running.process.gate().await;
        answer
    };
    let patience = Duration::from_mins(1);
    matches!(tokio::time::timeout(patience, answered).await, Ok(Ok(_)))
}
