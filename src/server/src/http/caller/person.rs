//! The person on whose behalf a caller acts, by a second token.
//!
//! Invariant: a person is named by a token of an issuer of people, which is verified as any
//! caller's is, and by nothing that the caller says. Whatever is wrong with it, the client hears
//! the same; the audit log says what, and who showed it.

use data_encoding::HEXLOWER;
use dayfly_lease::audit::Entry;

use super::{
    super::{envelope::request_id, possession::sha256, problem::Fault},
    Caller, write_refusal,
};
use crate::{
    broker::Broker,
    identity::{Kind, Principal},
};

impl Caller {
    /// The same caller, on behalf of the person whose token this is.
    pub(in crate::http) async fn on_behalf_of(
        self,
        broker: &Broker,
        token: &str,
    ) -> Result<Self, Fault> {
        let person = self.verified_person(broker, token).await?;
        Ok(Self { person: Some(person), ..self })
    }

    async fn verified_person(&self, broker: &Broker, token: &str) -> Result<Principal, Fault> {
        let person = match broker.authenticator.authenticate(token).await {
            Ok(person) => person,
            Err(rejection) => {
                let hash = HEXLOWER.encode(&sha256(token.as_bytes()));
                let entry = self.refusal_of("unknown", rejection.code()).with("token_hash", hash);
                let entry = match rejection.about() {
                    Some(about) => entry.with("about", about),
                    None => entry,
                };
                write_refusal(broker, entry).await?;
                if rejection.is_unavailable() {
                    let detail = "the person's issuer cannot be asked";
                    return Err(Fault::unavailable("identity_unavailable", detail));
                }
                return Err(Fault::person_not_accepted());
            }
        };
        match self.amiss_with(broker, &person).await? {
            None => Ok(person),
            Some(code) => Err(self.refused_person(broker, &person, code).await?),
        }
    }

    /// What is wrong with a token that is verified, by a stable name.
    async fn amiss_with(
        &self,
        broker: &Broker,
        person: &Principal,
    ) -> Result<Option<&'static str>, Fault> {
        if person.kind != Kind::Human {
            return Ok(Some("not_a_person"));
        }
        if let Err(unproven) = self.possession.confirms_beside(person) {
            return Ok(Some(unproven.code()));
        }
        let disabled = broker.store.disabled(&person.id()).await?;
        let refused = disabled.is_some_and(|row| row.refuses(person.issued_at()));
        Ok(refused.then_some("identity_disabled"))
    }

    /// Writes down that a person's token serves for nothing.
    pub(in crate::http) async fn refused_person(
        &self,
        broker: &Broker,
        person: &Principal,
        code: &str,
    ) -> Result<Fault, Fault> {
        let entry = self.refusal_of(&person.id(), code);
        write_refusal(broker, entry.with("token_hash", person.token_hash.as_str())).await?;
        Ok(Fault::person_not_accepted())
    }

    fn refusal_of(&self, person: &str, code: &str) -> Entry {
        Entry::new("identity.refused", person)
            .with("code", code)
            .with("shown_by", self.principal.id())
            .with("request", request_id())
    }
}
