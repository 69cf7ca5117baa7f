//! The failpoints in turn: every point with every action.
//!
//! Invariant: a visit counts only when the point was really reached: the process died of it, or
//! its log says so.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use dayfly_lease::failpoint::POINTS;

use crate::rng::Rng;

/// What a failpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Abort,
    Delay,
    Error,
}

const ACTIONS: [Action; 3] = [Action::Abort, Action::Delay, Action::Error];

/// How long it takes with one armed broker, on the whole.
const WINDOW: Duration = Duration::from_secs(14);
/// The most that are armed at once.
const AT_ONCE: u64 = 4;

/// A point with its action.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) point: &'static str,
    pub(crate) action: Action,
    /// As the broker's environment has it, with what else it takes to get there.
    pub(crate) text: String,
}

/// All of them in an order that the seed gives.
#[derive(Debug)]
pub(crate) struct Rota {
    todo: VecDeque<(&'static str, Action)>,
    visited: BTreeSet<(&'static str, Action)>,
    rng: Rng,
}

impl Rota {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 2);
        let mut all: Vec<_> =
            POINTS.iter().flat_map(|point| ACTIONS.map(|action| (*point, action))).collect();
        rng.shuffle(&mut all);
        Self { todo: all.into(), visited: BTreeSet::new(), rng }
    }

    pub(crate) fn total() -> usize {
        POINTS.len() * ACTIONS.len()
    }

    pub(crate) fn visited(&self) -> usize {
        self.visited.len()
    }

    pub(crate) fn missed(&self) -> Vec<String> {
        let all = POINTS.iter().flat_map(|point| ACTIONS.map(|action| (*point, action)));
        all.filter(|pair| !self.visited.contains(pair)).map(|(p, a)| format!("{p}={a:?}")).collect()
    }

    /// The next one; several at once when they could not all have their turn before `left` is
    /// over otherwise.
    pub(crate) fn next(&mut self, left: Duration) -> Vec<Arm> {
        let windows = left.as_secs() / WINDOW.as_secs() + 1;
        let missing = u64::try_from(Self::total() - self.visited.len()).unwrap_or(0);
        let wanted = missing.div_ceil(windows).clamp(1, AT_ONCE);
        let mut arms = vec![self.draw(|_| true).unwrap()];
        while arms[0].action != Action::Abort && (arms.len() as u64) < wanted {
            let points: Vec<_> = arms.iter().map(|arm| arm.point).collect();
            let goes_along = |&(point, action): &(&'static str, Action)| {
                action != Action::Abort && companion(point).is_none() && !points.contains(&point)
            };
            let Some(arm) = self.draw(goes_along) else { break };
            arms.push(arm);
        }
        arms
    }

    /// One that was not reached yet, or any when all were. It goes to the end of the queue.
    fn draw(&mut self, fits: impl Fn(&(&'static str, Action)) -> bool) -> Option<Arm> {
        let unseen = |pair: &(&'static str, Action)| !self.visited.contains(pair) && fits(pair);
        let position = self.todo.iter().position(unseen);
        let position = position.or_else(|| self.todo.iter().position(&fits))?;
        let (point, action) = self.todo.remove(position)?;
        self.todo.push_back((point, action));
        let does = match action {
            Action::Abort => "abort".to_owned(),
            Action::Delay => format!("delay:{}", self.rng.range(200, 4_000)),
            Action::Error => "error".to_owned(),
        };
        // Not always the first time that it is reached.
        let passed = if is_rare(point) { 0 } else { self.rng.range(0, 3) };
        let mut text = format!("{point}={passed}*off->{does}");
        if let Some(companion) = companion(point) {
            text = format!("{companion}=error;{text}");
        }
        Some(Arm { point, action, text })
    }

    pub(crate) fn reached(&mut self, arm: &Arm) {
        self.visited.insert((arm.point, arm.action));
    }
}

/// What must fail for a point to be reached at all.
fn companion(point: &str) -> Option<&'static str> {
    match point.trim_end_matches(".before").trim_end_matches(".after") {
        "store.settle" => Some("backend.mint.before"),
        "store.shorten" => Some("backend.renew.before"),
        "store.postpone" => Some("backend.revoke.before"),
        _ => None,
    }
}

/// Whether a broker gets there only when it is told to stop.
pub(crate) fn is_at_the_end(arm: &Arm) -> bool {
    arm.point.starts_with("store.hand_back")
}

fn is_rare(point: &str) -> bool {
    let rare = ["note", "renew", "expire_tasks.after", "hand_back", "take_turn", "list", "mark"];
    companion(point).is_some() || rare.iter().any(|part| point.contains(part))
}
