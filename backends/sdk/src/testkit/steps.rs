//! The steps of the suite.
//!
//! Invariant: each step makes names of its own and leaves nothing alive when it holds.

use super::{
    BTreeSet, Duration, ErrorKind, Expiry, Failure, Handle, Liveness, Marker, MintRequest, Plan,
    RenewRequest, Subject, Template, Timestamp, Uuid, chain, ensure,
};

const LONG: Duration = Duration::from_mins(10);

/// Minted, it works; revoked, it does not; revoking again is no error.
pub(super) async fn lifecycle(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    ensure(subject.liveness(&handle).await? != Some(Liveness::Live), "not there before the mint")?;
    let credential = subject.mint(&handle, LONG).await?;
    ensure(credential.fields().next().is_some(), "a credential has fields")?;
    for (variable, field) in credential.environment() {
        ensure(credential.field(field).is_some(), &format!("{variable} names a field"))?;
    }
    if let Some(declared) = subject.backend.variables(subject.template) {
        let pairs = declared.iter().map(|(variable, field)| (variable.as_ref(), field.as_ref()));
        let declared: BTreeSet<(&str, &str)> = pairs.collect();
        let minted: BTreeSet<(&str, &str)> = credential.environment().collect();
        ensure(declared == minted, "its variables are those that were declared")?;
    }
    ensure(subject.login.works(&credential).await, "a new credential works")?;
    ensure(subject.liveness(&handle).await? != Some(Liveness::Gone), "verify sees it live")?;
    if !subject.backend.capabilities().revoke {
        return Ok(());
    }
    subject.revoke(&[&handle]).await?;
    ensure(!subject.login.works(&credential).await, "a revoked credential is refused")?;
    ensure(subject.liveness(&handle).await? != Some(Liveness::Live), "verify sees it gone")?;
    subject.revoke(&[&handle]).await?;
    ensure(subject.liveness(&handle).await? != Some(Liveness::Live), "and it stays gone")
}

/// A name that exists is never reused, and what has it is untouched.
pub(super) async fn taken_name(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    let first = subject.mint(&handle, LONG).await?;
    match subject.mint_with(&handle, subject.template, LONG).await {
        Ok(_) => return Err(Failure::new("a taken name was minted again")),
        Err(error) if error.kind() == ErrorKind::Conflict => {}
        Err(error) => return Err(Failure::new(format!("not a conflict: {}", chain(&error)))),
    }
    ensure(subject.login.works(&first).await, "the old credential still works")?;
    clean(subject, &[&handle]).await
}

/// A template that another backend made is refused, and nothing is created.
pub(super) async fn foreign_template(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    let foreign = Template::new(Plan::default(), ());
    match subject.mint_with(&handle, &foreign, LONG).await {
        Ok(_) => return Err(Failure::new("a foreign template was minted")),
        Err(error) if error.kind() == ErrorKind::Invalid => {}
        Err(error) => return Err(Failure::new(format!("not invalid: {}", chain(&error)))),
    }
    ensure(subject.liveness(&handle).await? != Some(Liveness::Live), "nothing was created")
}

/// A create that arrives after its deadline is refused by the backend, and nothing is there.
pub(super) async fn late_mint(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    let now = subject.login.now().await;
    let request = MintRequest {
        handle: &handle,
        template: subject.template,
        expires_at: now.plus(LONG),
        mint_deadline: now.minus(Duration::from_millis(1)),
        principal: "testkit:subject",
        lease: "lse_testkit",
    };
    ensure(subject.backend.mint(&request).await.is_err(), "a late mint is refused")?;
    ensure(subject.liveness(&handle).await? != Some(Liveness::Live), "nothing was created")?;
    // The name is still free: the refusal left no half of it behind.
    subject.mint(&handle, LONG).await?;
    clean(subject, &[&handle]).await
}

/// Nobody revokes, and still it ends.
pub(super) async fn native_expiry(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    let ttl = subject.backend.capabilities().ttl_min;
    let credential = subject.mint(&handle, ttl).await?;
    ensure(subject.login.works(&credential).await, "it works before its expiry")?;
    let life_min = match subject.backend.capabilities().expiry {
        Expiry::None => Duration::ZERO,
        Expiry::Native { life_min, .. } => life_min,
    };
    subject.login.wait(ttl.max(life_min) + slack(subject)).await;
    ensure(!subject.login.works(&credential).await, "it is refused after its expiry")?;
    clean(subject, &[&handle]).await
}

/// An expiry moves later and earlier; what is gone cannot be renewed.
pub(super) async fn renew(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    let ttl = subject.backend.capabilities().ttl_min;
    let credential = subject.mint(&handle, ttl).await?;
    move_expiry(subject, &handle, LONG).await?;
    subject.login.wait(ttl + slack(subject)).await;
    ensure(subject.login.works(&credential).await, "a renewed credential outlives its first TTL")?;
    if subject.backend.capabilities().expiry != Expiry::None {
        move_expiry(subject, &handle, Duration::ZERO).await?;
        subject.login.wait(slack(subject)).await;
        ensure(!subject.login.works(&credential).await, "a shortened credential ends")?;
    }
    clean(subject, &[&handle]).await?;
    let plan = subject.template.plan();
    let until = subject.login.now().await.plus(LONG);
    match subject.backend.renew(&RenewRequest { handle: &handle, plan, until }).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("not `not found`: {}", chain(&error)))),
        Ok(()) => Err(Failure::new("what is gone was renewed")),
    }
}

/// The list has all of ours, in order and page by page, and nothing else.
pub(super) async fn list(subject: &Subject<'_>) -> Result<(), Failure> {
    let mut ours = Vec::new();
    for _ in 0..5 {
        let handle = subject.handle()?;
        subject.mint(&handle, LONG).await?;
        ours.push(handle);
    }
    let mut seen: Vec<Handle> = Vec::new();
    loop {
        let page = subject.backend.list(seen.last(), 2).await;
        let page = page.map_err(|error| Failure::new(format!("list: {}", chain(&error))))?;
        if matches!(subject.backend.capabilities().expiry, Expiry::Native { .. }) {
            let now = subject.login.now().await;
            // Minted for LONG from some seconds ago at most.
            let about = |at: Timestamp| {
                let ahead = at.since(now);
                ahead <= LONG && ahead + Duration::from_mins(1) >= LONG
            };
            let told = page.credentials.iter().all(|one| one.expires_at.is_some_and(about));
            ensure(told, "the list tells each credential's expiry")?;
        }
        let handles: Vec<Handle> = page.credentials.into_iter().map(|one| one.handle).collect();
        ensure(handles.len() <= 2, "a page holds no more than its limit")?;
        ensure(!page.more || !handles.is_empty(), "a page before the last is not empty")?;
        seen.extend(handles);
        if !page.more {
            break;
        }
    }
    ensure(seen.is_sorted(), "the pages are in order")?;
    let expected: BTreeSet<&Handle> = ours.iter().collect();
    ensure(seen.iter().collect::<BTreeSet<_>>() == expected, "the list is ours, all and only")?;
    ensure(seen.len() == ours.len(), "nothing is listed twice")?;
    clean(subject, &ours.iter().collect::<Vec<_>>()).await?;
    let after = subject.backend.list(None, 10).await;
    let after = after.map_err(|error| Failure::new(format!("list: {}", chain(&error))))?;
    ensure(after.credentials.is_empty() && !after.more, "the list is empty after the revocation")
}

/// The prefix has one owner: what the first wrote stands against any other.
pub(super) async fn marker(subject: &Subject<'_>) -> Result<(), Failure> {
    let read = async || {
        let found = subject.backend.marker().await;
        found.map_err(|error| Failure::new(format!("marker: {}", chain(&error))))
    };
    let before = read().await?;
    let installation = before.as_ref().map_or(Uuid::from_u128(7), |found| found.installation);
    for turn in [3, 4] {
        let marker = Marker { installation, turn };
        let marked = subject.backend.mark(&marker).await;
        marked.map_err(|error| Failure::new(format!("mark: {}", chain(&error))))?;
    }
    let found = read().await?;
    let ours = found.as_ref().map(|found| found.installation) == Some(installation);
    ensure(ours, "the marker is read back")?;
    let foreign = Marker { installation: Uuid::from_u128(8), turn: 9 };
    match subject.backend.mark(&foreign).await {
        Ok(()) => return Err(Failure::new("another installation's marker was replaced")),
        Err(error) if error.kind() == ErrorKind::Conflict => {}
        Err(error) => return Err(Failure::new(format!("not a conflict: {}", chain(&error)))),
    }
    ensure(read().await? == found, "a refused marker changes nothing")?;
    if !subject.backend.capabilities().list {
        return Ok(());
    }
    let listed = subject.backend.list(None, 10).await;
    let listed = listed.map_err(|error| Failure::new(format!("list: {}", chain(&error))))?;
    ensure(listed.credentials.is_empty(), "the marker is no credential")
}

/// A batch with a member that never was ends all the others.
pub(super) async fn batch(subject: &Subject<'_>) -> Result<(), Failure> {
    let (first, absent, last) = (subject.handle()?, subject.handle()?, subject.handle()?);
    let one = subject.mint(&first, LONG).await?;
    let two = subject.mint(&last, LONG).await?;
    subject.revoke(&[&first, &absent, &last]).await?;
    ensure(!subject.login.works(&one).await, "the first of the batch is refused")?;
    ensure(!subject.login.works(&two).await, "the last of the batch is refused")?;
    for handle in [&first, &absent, &last] {
        ensure(subject.liveness(handle).await? != Some(Liveness::Live), "each is gone")?;
    }
    subject.revoke(&[]).await
}

/// Revocation ends the sessions of its own credential and no others.
pub(super) async fn session_kill(subject: &Subject<'_>) -> Result<(), Failure> {
    let (doomed, spared) = (subject.handle()?, subject.handle()?);
    let one = subject.mint(&doomed, LONG).await?;
    let two = subject.mint(&spared, LONG).await?;
    let opened = (subject.login.open(&one).await, subject.login.open(&two).await);
    let (Some(mut session), Some(mut bystander)) = opened else {
        return Err(Failure::new("a backend that ends sessions has none"));
    };
    ensure(session.alive().await && bystander.alive().await, "both sessions are open")?;
    subject.revoke(&[&doomed]).await?;
    ensure(!session.alive().await, "the session of the revoked credential has ended")?;
    ensure(bystander.alive().await, "the other session goes on")?;
    clean(subject, &[&spared]).await
}

/// The canary passes and leaves nothing behind.
pub(super) async fn canary(subject: &Subject<'_>) -> Result<(), Failure> {
    let handle = subject.handle()?;
    let report = subject.backend.canary(&handle, subject.template).await;
    for step in &report.steps {
        if let Err(error) = &step.result {
            return Err(Failure::new(format!("{}: {}", step.name, chain(error))));
        }
    }
    ensure(report.passed(), "all four steps ran")?;
    ensure(subject.liveness(&handle).await? != Some(Liveness::Live), "nothing is left of it")
}

async fn clean(subject: &Subject<'_>, handles: &[&Handle]) -> Result<(), Failure> {
    if subject.backend.capabilities().revoke { subject.revoke(handles).await } else { Ok(()) }
}

async fn move_expiry(subject: &Subject<'_>, handle: &Handle, ttl: Duration) -> Result<(), Failure> {
    let plan = subject.template.plan();
    let until = subject.login.now().await.plus(ttl);
    let renewed = subject.backend.renew(&RenewRequest { handle, plan, until }).await;
    renewed.map_err(|error| Failure::new(format!("renew: {}", chain(&error))))
}

/// How long past the expiry a credential may live, and a little to be past it.
fn slack(subject: &Subject<'_>) -> Duration {
    let declared = match subject.backend.capabilities().expiry {
        Expiry::None => Duration::ZERO,
        Expiry::Native { slack, .. } => slack,
    };
    declared + Duration::from_millis(50)
}
