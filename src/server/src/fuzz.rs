//! A small fuzzer on stable Rust for what strangers send: inputs made of a corpus, and what
//! leads somewhere new joins the corpus.
//!
//! Invariant: what is tried is a function of the seed. The same seed tries the same inputs in
//! the same order, however long it runs, so that a finding can be repeated.
//!
//! By default each target tries so many inputs, the same ones each time. `DAYFLY_FUZZ_SECONDS`
//! has each run for so long, from a seed of its own that is printed; `DAYFLY_FUZZ_SEED` repeats
//! one, and `DAYFLY_FUZZ_INPUT` the one input that a finding was printed with.
//! `integration/fuzz` runs all targets one after the other.

mod bytes;
mod der;
mod dice;
mod tree;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

pub(crate) use bytes::change as change_bytes;
pub(crate) use der::{Element, changed as change_der};
pub(crate) use dice::Dice;
pub(crate) use tree::Node;

/// Where the default run begins.
const SEED: u64 = 0x5eed;
/// The longest input, in bytes.
const LEN_MAX: usize = 64 * 1024;
/// The longest input that takes the place of a known one, in bytes.
const KEPT_LEN_MAX: usize = 4 * 1024;
/// The longest that one input may take: far more than any does, also where machine and build
/// are slow.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// What reads inputs, and what must hold of it.
pub(crate) trait Target {
    /// Its name, in reports.
    const NAME: &'static str;
    /// How many inputs are tried by default: a second or two without optimisation.
    const ROUNDS: u64;

    /// What inputs are made of.
    fn corpus(&self) -> Vec<Vec<u8>>;

    /// What somebody makes of `input` who knows its form and has its key. Nothing where it has
    /// lost that form.
    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>>;

    /// Tries an input, and says what became of it: few texts, since each stands for a place that
    /// was reached.
    ///
    /// # Panics
    /// When a property does not hold.
    fn attempt(&self, input: &[u8]) -> String;
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Report {
    /// Each with the entry of the corpus that leads there.
    outcomes: BTreeMap<String, usize>,
    /// Whether it was one input that somebody asked for, which leads to one place alone.
    single: bool,
}

impl Report {
    /// Whether there was an outcome that begins so: a run that never came there shows nothing of
    /// it. Not asked of a single input.
    pub(crate) fn reached(&self, begin: &str) -> bool {
        self.single || self.outcomes.keys().any(|outcome| outcome.starts_with(begin))
    }
}

/// How long inputs are tried.
#[derive(Clone, Copy)]
enum Until {
    Executions(u64),
    Time(Duration),
}

/// Tries inputs for as long as the environment says.
///
/// # Panics
/// When a property does not hold; seed and input are printed.
pub(crate) fn run<T: Target>(target: &T) -> Report {
    if let Some(input) = variable("DAYFLY_FUZZ_INPUT") {
        let input = BASE64URL_NOPAD.decode(input.as_bytes()).expect("DAYFLY_FUZZ_INPUT");
        let mut run = Run::new(target, SEED);
        run.attempt(input);
        return Report { outcomes: run.outcomes, single: true };
    }
    let time = number("DAYFLY_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("DAYFLY_FUZZ_SEED");
    let seed = seed.unwrap_or_else(|| if time.is_some() { drawn_seed() } else { SEED });
    say(&format!("fuzz {}: DAYFLY_FUZZ_SEED={seed}", T::NAME));
    let mut run = Run::new(target, seed);
    let began = Instant::now();
    run.until(time.map_or(Until::Executions(T::ROUNDS), Until::Time));
    say(&format!(
        "fuzz {}: {} executions, {} outcomes, {} in the corpus, {:.1} s",
        T::NAME,
        run.executions,
        run.outcomes.len(),
        run.corpus.len(),
        began.elapsed().as_secs_f64()
    ));
    Report { outcomes: run.outcomes, single: false }
}

/// The property that does not hold of a target with a planted weakness, as far as the default
/// number of inputs finds one. What finds nothing there would find nothing anywhere.
pub(crate) fn finding<T: Target>(target: &T) -> Option<String> {
    let mut run = Run::new(target, SEED);
    let tried = catch_unwind(AssertUnwindSafe(|| run.until(Until::Executions(T::ROUNDS))));
    tried.err().map(|panic| said(&*panic))
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}

struct Run<'t, T> {
    target: &'t T,
    seed: u64,
    dice: Dice,
    corpus: Vec<Vec<u8>>,
    /// Each with the entry of the corpus that leads there.
    outcomes: BTreeMap<String, usize>,
    executions: u64,
}

impl<'t, T: Target> Run<'t, T> {
    fn new(target: &'t T, seed: u64) -> Self {
        Self {
            target,
            seed,
            dice: Dice::new(seed),
            corpus: Vec::new(),
            outcomes: BTreeMap::new(),
            executions: 0,
        }
    }

    /// Tries the corpus, then what is made of it.
    fn until(&mut self, until: Until) {
        self.corpus = self.target.corpus();
        let began = Instant::now();
        for input in self.corpus.clone() {
            self.attempt(input);
        }
        loop {
            let goes_on = match until {
                Until::Executions(most) => self.executions < most,
                Until::Time(most) => began.elapsed() < most,
            };
            if !goes_on {
                break;
            }
            let input = self.next_input();
            self.attempt(input);
        }
    }

    fn next_input(&mut self) -> Vec<u8> {
        let (dice, corpus) = (&mut self.dice, &self.corpus);
        let entry = dice.pick(corpus);
        let reshaped = if dice.one_in(2) { self.target.reshaped(entry, dice) } else { None };
        // What has the right form gets furthest as it is.
        let changes = match &reshaped {
            Some(_) if !dice.one_in(4) => 0,
            Some(_) | None => 1 + dice.below(4),
        };
        let mut input = reshaped.unwrap_or_else(|| entry.clone());
        for _ in 0..changes {
            let other = dice.pick(corpus);
            change_bytes(&mut input, other, dice);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn attempt(&mut self, input: Vec<u8>) {
        self.executions += 1;
        let (seed, execution) = (self.seed, self.executions);
        let witness = Witness { name: T::NAME, seed, execution, input: &input };
        let began = Instant::now();
        let outcome = self.target.attempt(&input);
        let took = began.elapsed();
        assert!(took <= ATTEMPT_MAX, "it took {took:?}");
        drop(witness);
        if let Some(entry) = self.outcomes.get(&outcome) {
            // Another way to the same place: what is known moves on, and does not grow.
            if input.len() <= KEPT_LEN_MAX && self.dice.one_in(32) {
                self.corpus[*entry] = input;
            }
        } else {
            self.outcomes.insert(outcome, self.corpus.len());
            self.corpus.push(input);
        }
    }
}

/// Says which input it was, when a property does not hold.
struct Witness<'i> {
    name: &'static str,
    seed: u64,
    execution: u64,
    input: &'i [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed, execution, input } = self;
            let (plain, encoded) = (input.escape_ascii(), BASE64URL_NOPAD.encode(input));
            say(&format!("fuzz {name}: found by execution {execution} of DAYFLY_FUZZ_SEED={seed}"));
            say(&format!("fuzz {name}: b\"{plain}\""));
            say(&format!("fuzz {name}: DAYFLY_FUZZ_INPUT={encoded}"));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{name} is `{text}`: {error}")))
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says for how long")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn drawn_seed() -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

#[expect(clippy::print_stderr, reason = "shown with a failure, and by integration/fuzz")]
fn say(line: &str) {
    eprintln!("{line}");
}

mod tests;
