//! What there is under our prefix, page by page.
//!
//! Invariant: a name counts only when it has exactly the shape of our handles; what cannot be read
//! to its end is an error, since a name that was not seen would be taken for dead.

use std::collections::BTreeMap;

use dayfly_backend_sdk::{Handle, HandlePrefix, Timestamp};
use serde_json::{Map, Value};

use crate::{
    api::Api,
    config::ItemsConfig,
    error::Failure,
    request::Request,
    values::{Values, instant},
};

const PAGES_MAX: u32 = 1_000;

/// How the API lists credentials.
pub(crate) struct List {
    pub(crate) request: Request,
    pub(crate) items: ItemsConfig,
}

/// One that it listed.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) handle: Handle,
    pub(crate) id: Option<Value>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl List {
    /// All of ours, of a role where the request asks for one.
    pub(crate) async fn read(
        &self,
        api: &Api,
        prefix: &HandlePrefix,
        role: Option<&Map<String, Value>>,
    ) -> Result<Vec<Item>, Failure> {
        let values = Values { role, ..Values::default() };
        let first = self.request.ready(api.base(), &values)?;
        let mut ready = first.clone();
        let mut items = Vec::new();
        for number in 1..=PAGES_MAX {
            if let Some(parameter) = &self.items.page_parameter {
                ready = first.clone();
                ready.url.query_pairs_mut().append_pair(parameter, &number.to_string());
            }
            let mut answer = self.request.good(api.ask(ready.clone()).await?)?;
            let next = answer.next.take();
            let page = answer.at(self.items.at.as_deref()).and_then(Value::as_array);
            let page = page.ok_or(Failure::Strange("has no list where `items` says"))?;
            for item in page {
                items.extend(self.item(item, prefix)?);
            }
            match (&self.items.page_parameter, next) {
                (Some(_), _) if page.is_empty() => return Ok(items),
                (Some(_), _) => {}
                (None, None) => return Ok(items),
                (None, Some(next)) if api.is_home(&next) => ready.url = next,
                (None, Some(_)) => {
                    return Err(Failure::Strange("has its next page at another address"));
                }
            }
        }
        Err(Failure::Strange("has more than 1000 pages"))
    }

    fn item(&self, item: &Value, prefix: &HandlePrefix) -> Result<Option<Item>, Failure> {
        let name = item.pointer(&self.items.name);
        let name = name.ok_or(Failure::Strange("has an item without a name where `items` says"))?;
        // Exactly the shape of our handles: somebody else's must not be swept away.
        let ours = name.as_str().filter(|name| prefix.lease_of(name).is_some());
        let Some(Ok(handle)) = ours.map(Handle::parse) else { return Ok(None) };
        let at = |place: &Option<String>| place.as_ref().and_then(|place| item.pointer(place));
        let id = at(&self.items.id).filter(|id| is_id(id)).cloned();
        if self.items.id.is_some() && id.is_none() {
            return Err(Failure::Strange("has an item without an id where `items` says"));
        }
        Ok(Some(Item { handle, id, expires_at: at(&self.items.expires_at).and_then(instant) }))
    }
}

pub(crate) fn is_id(id: &Value) -> bool {
    id.is_u64() || id.as_str().is_some_and(|id| !id.is_empty())
}

/// Lists that were read for one call: one for all credentials of a role.
pub(crate) struct Rolls<'a> {
    api: &'a Api,
    list: &'a List,
    prefix: &'a HandlePrefix,
    read: BTreeMap<String, Result<Vec<Item>, Failure>>,
}

impl<'a> Rolls<'a> {
    pub(crate) fn new(api: &'a Api, list: &'a List, prefix: &'a HandlePrefix) -> Self {
        Self { api, list, prefix, read: BTreeMap::new() }
    }

    /// Those that have the name of `handle`.
    pub(crate) async fn find(
        &mut self,
        role: Option<&Map<String, Value>>,
        handle: &Handle,
    ) -> Result<Vec<Item>, Failure> {
        let key = role.map(|role| Value::Object(role.clone()).to_string()).unwrap_or_default();
        if !self.read.contains_key(&key) {
            let read = self.list.read(self.api, self.prefix, role).await;
            self.read.insert(key.clone(), read);
        }
        match self.read.get(&key) {
            Some(Ok(items)) => {
                Ok(items.iter().filter(|item| item.handle == *handle).cloned().collect())
            }
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(Failure::Strange("was not read")),
        }
    }
}
