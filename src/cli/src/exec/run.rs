//! The command while it runs, its credentials kept alive and in their places.
//!
//! Invariant: nothing that happens to a credential ends the command, unless `--on-expiry term` says
//! so; a restart is the same command with what is valid then.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    pin::{Pin, pin},
    time::Duration,
};

use dayfly_api::{Credential, Lease, Outcome};
use futures_util::future::join4;
use rustix::process::{Pid, Signal};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    args::ExecArgs,
    exec::{
        Ended, Error, Session, at,
        child::{self, Exit, Spawned},
        deliver::{Delivered, fifo},
        environment::inherit::ChildEnvironment,
        heartbeat,
        hold::{self, Event},
        reap::{self, Reaper},
        restart::{Restart, Step},
        signals::Signals,
        stop::{Action, Stop},
        stopped, ttl,
    },
    failure::Failure,
    mask::{Drains, Masking},
    task,
};

/// Between two attempts to kill what the command has left: what is killed leaves its own children.
const KILL_AGAIN: Duration = Duration::from_millis(200);
/// More news than leases have at once.
const EVENTS: usize = 64;

/// One run of a command in an open task.
pub(super) struct Run<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) args: &'a ExecArgs,
    pub(super) program: &'a Path,
    pub(super) masking: &'a Masking<'a>,
    /// Those that may be alive, also when they have been replaced.
    pub(super) leases: RefCell<Vec<Lease>>,
    pub(super) delivered: RefCell<Delivered<'a>>,
}

impl Run<'_> {
    /// Puts the credentials into their places and runs the command.
    pub(super) async fn run(
        &self,
        credentials: Vec<(String, Credential)>,
        signals: &mut Signals,
        drains: &mut Drains,
    ) -> Result<Ended, Error> {
        self.delivered.borrow_mut().fill(credentials.into_iter())?;
        let environment = self.delivered.borrow().environment()?;
        self.announce(&environment);
        if self.args.process.replace {
            self.lengthen().await;
        }
        self.session.terminal.settle().await;
        if self.args.process.replace {
            self.session.terminal.finish();
        }
        if let Some(signal) = signals.pending_stop() {
            let exit = stopped(signal, self.session.terminal);
            return Ok(Ended { exit, outcome: Outcome::Cancelled, hurried: false });
        }
        if self.args.process.replace {
            let (command, variables) = (&self.args.command, environment.variables);
            return Err(child::become_program(self.program, command, variables).into());
        }
        let mut reaper = Reaper::install();
        let child = self.spawn(environment, drains)?;
        let mut running = Running {
            run: self,
            child,
            stop: Stop::new(self.args.stop_timeout),
            restart: Restart::new(self.args.stop_timeout),
            drains,
        };
        self.supervise(&mut running, &mut reaper, signals).await
    }

    fn spawn(&self, environment: ChildEnvironment, drains: &mut Drains) -> Result<Spawned, Error> {
        let (command, variables) = (&self.args.command, environment.variables);
        let (streams, target) = (self.masking.streams(), self.args.process.signal_target);
        let mut child = child::spawn(self.program, command, variables, streams, target)?;
        let more = self.masking.attach(child.inner()).map_err(|source| {
            // Nothing takes its output.
            child.signal(Signal::KILL);
            Error::Streams(source)
        })?;
        drains.append(more);
        Ok(child)
    }

    fn announce(&self, environment: &ChildEnvironment) {
        let Session { terminal, task, .. } = self.session;
        for lease in self.leases.borrow().iter() {
            terminal.note(&format!(
                "task {}: role `{}` → lease {} ({}, until {})",
                task.id, lease.role, lease.id, lease.backend, lease.expires_at
            ));
        }
        for place in self.delivered.borrow().places() {
            terminal.note(&place);
        }
        for (what, names) in
            [("replacing", &environment.replaced), ("keeping", &environment.preserved)]
        {
            if !names.is_empty() {
                terminal.note(&format!("{what} from the environment: {}", names.join(", ")));
            }
        }
    }

    /// Gives the leases all of the life that they can have: nobody will renew them later.
    async fn lengthen(&self) {
        let Session { client, token, terminal, .. } = self.session;
        let leases = self.leases.borrow().clone();
        for lease in leases {
            let until = task::lengthened(&lease, ttl(self.args), client, token, terminal).await;
            terminal.note(&format!(
                "lease {} ends at {until}, whatever becomes of the command",
                lease.id
            ));
        }
    }

    /// Waits for the command, passes signals on, keeps its leases and its task alive.
    async fn supervise(
        &self,
        running: &mut Running<'_, '_>,
        reaper: &mut Reaper,
        signals: &mut Signals,
    ) -> Result<Ended, Error> {
        let terminal = self.session.terminal;
        let (sender, mut events) = mpsc::channel(EVENTS);
        let command = Cell::new(running.child.pid());
        let mut upkeep = pin!(self.upkeep(&command, reaper, sender));
        let status = loop {
            let (deadline, timer) = (running.stop.deadline(), running.timer());
            let action = tokio::select! {
                status = running.child.wait() => {
                    let status = status?;
                    if !running.makes_room() {
                        break status;
                    }
                    running.start()?;
                    command.set(running.child.pid());
                    continue;
                }
                arrived = signals.next() => running.stop.on(arrived, Instant::now()),
                () = at(deadline), if deadline.is_some() => {
                    // First: a log that nobody reads may be what keeps it, and us.
                    running.child.act(running.stop.overdue());
                    terminal.warn("the command did not stop in time, and was killed");
                    continue;
                }
                () = at(timer), if timer.is_some() => running.step(),
                Some(event) = events.recv() => running.on(event),
                () = &mut upkeep => continue,
            };
            running.child.act(action);
        };
        let exit = Exit::of(status);
        if running.child.never_ran() && !running.restart.has_restarted() {
            return Ok(Ended { exit, outcome: Outcome::Cancelled, hurried: false });
        }
        self.session.record.ended(exit);
        if self.args.process.wait_all {
            let end = self.session.opened_at + self.args.ttl;
            self.outlast(end, upkeep, signals, &mut running.stop).await;
        }
        let left = reap::running();
        if left > 0 {
            let processes = if left == 1 { "a process" } else { "processes" };
            terminal.note(&format!("the command left {processes} running, without credentials"));
        }
        // What told the command to stop told us at the same time, and may only now be seen.
        while let Some(arrived) = signals.arrived() {
            running.stop.on(arrived, Instant::now());
        }
        Ok(running.stop.ended(exit))
    }

    /// What goes on beside the command, whose process `command` tells. It never ends.
    async fn upkeep(
        &self,
        command: &Cell<Option<Pid>>,
        reaper: &mut Reaper,
        events: mpsc::Sender<Event>,
    ) {
        let beats = async {
            if let Some(every) = self.args.heartbeat.0 {
                heartbeat::beat(self.session, every).await;
                self.session.terminal.warn("the command goes on, and its credentials end");
            }
        };
        let fifos = fifo::serve(&self.delivered, self.session.terminal);
        join4(beats, hold::keep_alive(self, events), fifos, reaper.reap(command)).await;
    }

    /// Waits until all that the command has started is gone, or until `end`.
    async fn outlast(
        &self,
        end: Instant,
        mut upkeep: Pin<&mut impl Future<Output = ()>>,
        signals: &mut Signals,
        stop: &mut Stop,
    ) {
        if stop.was_told() {
            // What has left the command's group was not told.
            reap::signal_all(Signal::TERM);
        }
        let mut is_killing = stop.has_killed();
        let mut gone = pin!(reap::all_gone());
        loop {
            let deadline = stop.deadline();
            let event = tokio::select! {
                () = &mut gone => return,
                () = sleep_until(end) => {
                    self.session
                        .terminal
                        .warn("the task's time is up before the command's processes ended");
                    return;
                }
                () = sleep(KILL_AGAIN), if is_killing => Action::Kill,
                arrived = signals.next() => stop.on(arrived, Instant::now()),
                () = at(deadline), if deadline.is_some() => stop.overdue(),
                () = &mut upkeep => continue,
            };
            match event {
                Action::Forward(signal) => reap::signal_all(signal),
                Action::Kill => {
                    is_killing = true;
                    reap::signal_all(Signal::KILL);
                }
                Action::Nothing => {}
            }
        }
    }
}

/// The command while it runs, and while it makes room for its next start.
struct Running<'r, 'a> {
    run: &'r Run<'a>,
    child: Spawned,
    stop: Stop,
    restart: Restart,
    drains: &'r mut Drains,
}

impl Running<'_, '_> {
    /// What hears of a changed credential hears of it now; a restart takes its time.
    fn on(&mut self, event: Event) -> Action {
        match event {
            Event::Ended => self.stop.expire(Instant::now()),
            Event::Restart(done) => {
                self.restart.ask(done, Instant::now());
                Action::Nothing
            }
            Event::Signal(signal, done) => {
                // Its lease may have ended meanwhile.
                let _ = done.send(());
                Action::Forward(signal)
            }
        }
    }

    /// When a restart goes on. A command that was told to stop is not started again.
    fn timer(&self) -> Option<Instant> {
        if self.stop.was_told() { None } else { self.restart.timer() }
    }

    fn step(&mut self) -> Action {
        let terminal = self.run.session.terminal;
        // What could not be started must not be stopped.
        if self.restart.stopping_since().is_none()
            && let Err(error) = self.run.delivered.borrow().environment()
        {
            let reason = Failure::Exec(error.into()).to_line();
            terminal.warn(&format!("the command is not started again: {reason}"));
            self.restart.give_up();
            return Action::Nothing;
        }
        match self.restart.step(Instant::now()) {
            Step::Kill => {
                self.child.act(Action::Kill);
                terminal.warn("the command did not stop for its restart, and was killed");
                Action::Nothing
            }
            Step::Nothing => Action::Nothing,
            Step::Stop => {
                terminal.note("stopping the command, to start it with new credentials");
                Action::Forward(Signal::TERM)
            }
        }
    }

    /// Whether the command has ended to be started again, and not for any other reason.
    fn makes_room(&self) -> bool {
        let since = self.restart.stopping_since();
        since.is_some_and(|since| !self.stop.was_told() && !self.stop.was_interrupted_since(since))
    }

    fn start(&mut self) -> Result<(), Error> {
        let environment = self.run.delivered.borrow().environment()?;
        self.child = self.run.spawn(environment, self.drains)?;
        self.restart.started(Instant::now());
        self.run.session.terminal.note("the command runs again, with new credentials");
        Ok(())
    }
}
